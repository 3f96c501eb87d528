//! Addresses and ancillary data (cmsg(3)) in the kernel's layout.
#![allow(unsafe_code, reason = "ancillary data is a list of C structures behind a pointer")]

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;
use std::time::{Duration, SystemTime};

use libc::{c_int, in_pktinfo, in6_pktinfo, sockaddr_in, sockaddr_in6};

/// A socket address of either family; the smaller `sockaddr_in` is kept as the beginning of the larger.
pub(super) type Name = sockaddr_in6;

/// Ancillary data of one message. Aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; CONTROL_BYTES]);

pub(super) const CONTROL_BYTES: usize = 128;

pub(super) const NO_NAME: Name = Name {
    sin6_family: 0,
    sin6_port: 0,
    sin6_flowinfo: 0,
    sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
    sin6_scope_id: 0,
};

pub(super) const NO_CONTROL: Control = Control([0; CONTROL_BYTES]);

// An IPv4 address lies where an IPv6 address has its flow information, so one structure serves for both.
const _: () = assert!(
    offset_of!(sockaddr_in, sin_family) == offset_of!(sockaddr_in6, sin6_family)
        && offset_of!(sockaddr_in, sin_port) == offset_of!(sockaddr_in6, sin6_port)
        && offset_of!(sockaddr_in, sin_addr) == offset_of!(sockaddr_in6, sin6_flowinfo)
        && size_of::<sockaddr_in>() <= size_of::<sockaddr_in6>()
);

// What a message carries fits: our address, a segment size and a time.
const _: () = assert!(
    // SAFETY: arithmetic only.
    unsafe {
        libc::CMSG_SPACE(size_of::<in6_pktinfo>() as u32)
            + libc::CMSG_SPACE(size_of::<c_int>() as u32)
            + libc::CMSG_SPACE(size_of::<libc::timespec>() as u32)
    } as usize
        <= CONTROL_BYTES
);

/// What the ancillary data of a received message says.
#[derive(Debug, Default)]
pub(super) struct Ancillary {
    /// The address the message was sent to, canonical, where one can reply from it.
    pub(super) local: Option<IpAddr>,
    /// Length of each datagram but the last, where the kernel merged several.
    pub(super) segment: Option<usize>,
    /// When the kernel received it.
    pub(super) arrived: Option<SystemTime>,
}

/// The sender's address, canonical: a v4-mapped address is a v4 address, a link-local one keeps its scope.
pub(super) fn parse_name(name: &Name) -> Option<SocketAddr> {
    let port = u16::from_be(name.sin6_port);
    match c_int::from(name.sin6_family) {
        libc::AF_INET => Some((Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()), port).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => (ip, port).into(),
                None => SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}

/// `address` for a socket of the family that `v6` says, and its length.
pub(super) fn write_name(address: SocketAddr, v6: bool) -> (Name, libc::socklen_t) {
    match address {
        SocketAddr::V4(address) if !v6 => {
            let name = Name {
                sin6_family: libc::AF_INET as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: u32::from_ne_bytes(address.ip().octets()),
                ..NO_NAME
            };
            (name, size_of::<sockaddr_in>() as libc::socklen_t)
        }
        _ => {
            let scope = match address {
                SocketAddr::V4(_) => 0,
                SocketAddr::V6(address) => address.scope_id(),
            };
            let name = Name {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_addr: libc::in6_addr { s6_addr: to_v6(address.ip()).octets() },
                sin6_scope_id: scope,
                ..NO_NAME
            };
            (name, size_of::<sockaddr_in6>() as libc::socklen_t)
        }
    }
}

impl Control {
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// Reads the ancillary data of a received message.
///
/// # Safety
/// `header` must be as the kernel filled it: `msg_control` points to `msg_controllen` readable, aligned bytes
/// that hold well-formed cmsgs.
pub(super) unsafe fn parse_control(header: &libc::msghdr) -> Ancillary {
    let mut ancillary = Ancillary::default();
    // SAFETY: by this function's contract.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: `next` leads to a complete cmsg within the ancillary data, whose data the kernel wrote as the
        // structure that its type says.
        unsafe {
            let data = libc::CMSG_DATA(next);
            match ((*next).cmsg_level, (*next).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: in6_pktinfo = ptr::read_unaligned(data.cast());
                    ancillary.local = reply_address(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // `spec_dst` is our address even where the packet was broadcast.
                    let info: in_pktinfo = ptr::read_unaligned(data.cast());
                    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    ancillary.local = reply_address(address.into());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: c_int = ptr::read_unaligned(data.cast());
                    ancillary.segment = usize::try_from(size).ok().filter(|&size| size > 0);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time: libc::timespec = ptr::read_unaligned(data.cast());
                    let since = u64::try_from(time.tv_sec).unwrap_or(0);
                    let since = Duration::new(since, u32::try_from(time.tv_nsec).unwrap_or(0));
                    ancillary.arrived = SystemTime::UNIX_EPOCH.checked_add(since);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    ancillary
}

/// Writes into the control buffer of `header` that the message leaves from `local`, and, with `segment`, in
/// datagrams of that length; sets `msg_control` and `msg_controllen` accordingly.
///
/// # Safety
/// `control` must stay where it is for as long as `header` is used.
pub(super) unsafe fn write_control(
    header: &mut libc::msghdr,
    control: &mut Control,
    local: Option<IpAddr>,
    segment: Option<u16>,
    v6: bool,
) {
    let mut used = 0;
    match local {
        Some(local) if v6 => {
            let ipi6_addr = libc::in6_addr { s6_addr: to_v6(local).octets() };
            // Interface 0: the route decides, or the scope of a link-local receiver.
            let info = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            // SAFETY: `control` has room for it, as asserted above.
            used += unsafe { put(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        }
        Some(IpAddr::V4(local)) => {
            let any = libc::in_addr { s_addr: 0 };
            let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
            let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: any };
            // SAFETY: as above; it is smaller.
            used += unsafe { put(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
        }
        _ => {}
    }
    if let Some(segment) = segment {
        // SAFETY: as above; a `u16` takes no more room than an `int`.
        used += unsafe { put(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment) };
    }
    header.msg_control = if used > 0 { control.as_mut_ptr() } else { ptr::null_mut() };
    header.msg_controllen = used as _;
}

/// Writes one cmsg at `offset` and returns the bytes it takes.
///
/// # Safety
/// `offset` must be a sum of earlier results and leave `CMSG_SPACE(size_of::<T>())` bytes.
unsafe fn put<T: Copy>(control: &mut Control, offset: usize, level: c_int, kind: c_int, data: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: the bytes are within `control` by this function's contract and aligned, because `control` is and
    // CMSG_SPACE is a multiple of the alignment.
    unsafe {
        let cmsg: *mut libc::cmsghdr = control.0.as_mut_ptr().add(offset).cast();
        (*cmsg).cmsg_level = level;
        (*cmsg).cmsg_type = kind;
        (*cmsg).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(cmsg).cast(), data);
        libc::CMSG_SPACE(size) as usize
    }
}

/// `address`, canonical, where a reply can leave from it: not a group's address.
fn reply_address(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let group = address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!group && !address.is_unspecified()).then_some(address)
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    #[test]
    fn addresses_survive_the_kernels_layout_in_sockets_of_both_families() {
        for text in ["192.0.2.7:9", "[2001:db8::7]:65535", "[fe80::7%3]:1"] {
            assert_eq!(parse_name(&write_name(address(text), true).0), Some(address(text)));
        }
        let (name, len) = write_name(address("192.0.2.7:9"), false);
        assert_eq!(parse_name(&name), Some(address("192.0.2.7:9")));
        assert_eq!(len as usize, size_of::<sockaddr_in>());
    }

    #[test]
    fn a_v4_mapped_sender_is_a_v4_sender() {
        let (name, _) = write_name(address("[::ffff:192.0.2.7]:9"), true);
        assert_eq!(parse_name(&name), Some(address("192.0.2.7:9")));
        assert_eq!(parse_name(&NO_NAME), None);
    }

    #[test]
    fn ancillary_data_is_read_as_it_was_written() {
        for (local, v6) in [("192.0.2.7", false), ("192.0.2.7", true), ("2001:db8::7", true)] {
            let local: IpAddr = local.parse().expect("literal");
            let mut control = NO_CONTROL;
            // SAFETY: plain data, for which zero is valid.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            // SAFETY: `control` outlives `header` and is not moved.
            unsafe { write_control(&mut header, &mut control, Some(local), None, v6) };
            // SAFETY: just written.
            let read = unsafe { parse_control(&header) };
            assert_eq!((read.local, read.segment), (Some(local), None));
        }
    }

    #[test]
    fn nobody_replies_from_a_group_address() {
        for text in ["255.255.255.255", "224.0.0.1", "ff02::1", "::", "0.0.0.0", "::ffff:224.0.0.1"] {
            assert_eq!(reply_address(text.parse().expect("literal")), None, "{text}");
        }
        let mapped = reply_address("::ffff:192.0.2.7".parse().expect("literal"));
        assert_eq!(mapped, Some(Ipv4Addr::new(192, 0, 2, 7).into()));
    }
}
