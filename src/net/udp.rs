//! The one UDP socket of a worker.
//!
//! The cost of sending is the kernel's per-packet path, not the system call: many messages in one call save
//! next to nothing, one message that the kernel (or the network card) cuts into datagrams saves most of it.
//! Hence runs (UDP GSO) on the way out and merged messages (UDP GRO) on the way in.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg and their ancillary data have no safe interface")]

use std::io;
use std::mem::{size_of_val, zeroed};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicBool;

use libc::{c_int, c_uint, iovec, mmsghdr};
use socket2::{Domain, Protocol, Socket, Type};

use super::buffer::{Cursor, RECEIVE_MESSAGES, ReceiveBatch, Received, SendBatch};
use super::flush::{SEND_MESSAGES, SendFailure, flush};
use super::message::{self, CONTROL_BYTES, Control, NO_CONTROL, NO_NAME, Name};
use crate::id::AddressPair;

/// Errors in a row that one receive call swallows. They are reports about earlier sends (a closed port, say),
/// one for each call; more than this many wait for the next turn, so that a flood of them starves nobody.
const RECEIVE_ERRORS: usize = 16;

/// A non-blocking UDP socket that knows for each datagram which of our addresses it was sent to.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    /// An IPv6 socket, which takes IPv4 addresses in their mapped form only.
    v6: bool,
    /// Cleared for good when the device turns out not to segment.
    gso: AtomicBool,
}

impl UdpSocket {
    /// Binds `address`: `[::]` serves IPv4 as well, and where there is no IPv6 it becomes `0.0.0.0`. Port 0 lets
    /// the kernel choose. `buffer` is the number of bytes asked for in each direction; see
    /// [`buffer_sizes`](Self::buffer_sizes) for what was given.
    ///
    /// # Errors
    /// The kernel's, mostly because the port is taken or the address is not ours.
    pub fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = match Self::bind_exactly(address, buffer) {
            Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
                tracing::info!("no IPv6 here: listening on IPv4 only");
                Self::bind_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), buffer)?
            }
            result => result?,
        };
        let (receive, send) = socket.buffer_sizes();
        if receive.min(send) < buffer {
            tracing::warn!(
                asked = buffer,
                receive,
                send,
                "small UDP buffers: bursts are lost; raise net.core.rmem_max and wmem_max"
            );
        }
        Ok(socket)
    }

    fn bind_exactly(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if v6 {
            socket.set_only_v6(!address.ip().is_unspecified())?;
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        } else {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        // An older kernel without it merges nothing, which is only slower.
        let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        // Without the kernel's times a busy machine is taken for a congested network, which is only unfortunate.
        let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        let size = c_int::try_from(buffer).unwrap_or(c_int::MAX);
        // The forced kind ignores the system's limit, where the process may; the other is cut down silently.
        for (forced, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            set_option(&socket, libc::SOL_SOCKET, forced, size)
                .or_else(|_| set_option(&socket, libc::SOL_SOCKET, plain, size))?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, local, v6, gso: AtomicBool::new(true) })
    }

    /// The address bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Bytes of the receive and of the send buffer as the kernel has them, in the measure in which they are
    /// asked for. Per datagram it charges about twice its length.
    #[must_use]
    pub fn buffer_sizes(&self) -> (usize, usize) {
        // The kernel doubles what it is asked for, for its book-keeping, and reports the double.
        let size = |read: io::Result<usize>| read.unwrap_or(0) / 2;
        (size(self.socket.recv_buffer_size()), size(self.socket.send_buffer_size()))
    }

    /// Replaces the contents of `batch` by what waits in the socket, and returns the number of messages, of at
    /// most [`RECEIVE_MESSAGES`]; 0 where nothing waits. A message is one datagram or several that the kernel
    /// merged: [`ReceiveBatch::datagrams`] takes them apart.
    ///
    /// # Errors
    /// Only what can never mend, such as a descriptor that is not a socket. Errors that report the fate of
    /// earlier sends are swallowed.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        for _ in 0..RECEIVE_ERRORS {
            let error = match receive_messages(self.as_raw_fd(), batch) {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            match error.raw_os_error() {
                _ if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        Ok(0)
    }

    /// Sends everything in `batch` and empties it. `on_error(tag, error, failure)` is called for each datagram
    /// that is lost, and for each receiver whose path takes no runs; the others are sent all the same.
    pub fn send(&self, batch: &mut SendBatch, on_error: &mut dyn FnMut(u32, &io::Error, SendFailure)) {
        let (fd, v6) = (self.as_raw_fd(), self.v6);
        flush(batch, &self.gso, |messages| send_messages(fd, v6, batch, messages), on_error);
        batch.clear();
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One recvmmsg(2). On an error the batch is empty.
fn receive_messages(fd: RawFd, batch: &mut ReceiveBatch) -> io::Result<usize> {
    batch.clear();
    let mut names = [NO_NAME; RECEIVE_MESSAGES];
    let mut controls = [NO_CONTROL; RECEIVE_MESSAGES];
    // SAFETY: iovec and mmsghdr are plain C structures, for which zero is valid.
    let (mut parts, mut headers): ([iovec; RECEIVE_MESSAGES], [mmsghdr; RECEIVE_MESSAGES]) =
        unsafe { zeroed() };
    let stripes = batch.bytes.chunks_exact_mut(batch.stride);
    let rows = headers.iter_mut().zip(&mut parts).zip(&mut names).zip(&mut controls).zip(stripes);
    for ((((header, part), name), control), stripe) in rows {
        *part = iovec { iov_base: stripe.as_mut_ptr().cast(), iov_len: stripe.len() };
        let header = &mut header.msg_hdr;
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_namelen = size_of_val(name) as libc::socklen_t;
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr();
        header.msg_controllen = CONTROL_BYTES as _;
    }
    // SAFETY: every pointer in `headers` leads to an array above or into `batch`, with the length that stands
    // beside it; all are writable, live until the call returns, and nothing else looks at them meanwhile.
    let count = unsafe {
        libc::recvmmsg(
            fd,
            headers.as_mut_ptr(),
            RECEIVE_MESSAGES as c_uint,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for header in headers.iter().take(count) {
        batch.add(received(header));
    }
    Ok(count)
}

/// What the kernel says about a message; `None` where it does not fit.
fn received(header: &mmsghdr) -> Option<Received> {
    let len = header.msg_len as usize;
    let header = &header.msg_hdr;
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    // SAFETY: `msg_name` points to one of the names of the caller, of which all bytes are initialised.
    let name = unsafe { ptr::read(header.msg_name.cast::<Name>()) };
    // SAFETY: the kernel filled `header`, and its control buffer is one of the caller's.
    let ancillary = unsafe { message::parse_control(header) };
    let pair = AddressPair { local: ancillary.local, remote: message::parse_name(&name)? };
    let segment = ancillary.segment.unwrap_or(len).max(1);
    Some(Received { pair, len, segment, arrived: ancillary.arrived })
}

/// One sendmmsg(2) of the first messages; returns how many the kernel took.
fn send_messages(fd: RawFd, v6: bool, batch: &SendBatch, messages: Cursor<'_>) -> io::Result<usize> {
    let mut names = [NO_NAME; SEND_MESSAGES];
    let mut controls: [Control; SEND_MESSAGES] = [NO_CONTROL; SEND_MESSAGES];
    // SAFETY: iovec and mmsghdr are plain C structures, for which zero is valid.
    let (mut parts, mut headers): ([iovec; SEND_MESSAGES], [mmsghdr; SEND_MESSAGES]) = unsafe { zeroed() };
    let rows = headers.iter_mut().zip(&mut parts).zip(&mut names).zip(&mut controls).zip(messages);
    let mut count = 0;
    for ((((header, part), name), control), message) in rows {
        let bytes = batch.bytes(&message);
        *part = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut header.msg_hdr;
        (*name, header.msg_namelen) = message::write_name(message.pair.remote, v6);
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_iov = part;
        header.msg_iovlen = 1;
        let segment = (message.datagrams() > 1).then_some(message.segment as u16);
        // SAFETY: `controls` stays where it is until the call below has returned.
        unsafe { message::write_control(header, control, message.pair.local, segment, v6) };
        count += 1;
    }
    // SAFETY: the first `count` headers are filled; every pointer in them leads to an array above or into
    // `batch`, with the length that stands beside it, and lives until the call returns. The kernel only reads
    // what they lead to.
    let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: `value` is live for the call, and its length is the one that is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests;
