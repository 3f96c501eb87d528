//! Waiting for the socket, for another thread, or for a deadline: whichever is first.
#![allow(unsafe_code, reason = "epoll and eventfd have no safe interface in the standard library")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::UdpSocket;

const SOCKET: u64 = 0;
const WAKER: u64 = 1;

/// What ended a wait. Both may be set; neither is after a time-out or a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Datagrams, or a pending error, wait in the socket. Level-triggered: it stays set until they are read.
    pub socket: bool,
    /// [`Waker::wake`] was called since the last wait that reported it, any number of times.
    pub woken: bool,
}

/// Waits for one socket and its wakers.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    /// An eventfd: read as a file, it yields the number of wake-ups and is reset.
    event: Arc<File>,
}

/// Ends a [`Poller`]'s wait from any thread; a wake-up before the wait is not lost.
#[derive(Clone, Debug)]
pub struct Waker(Arc<File>);

impl Poller {
    /// A poller for `socket`, which it watches but does not keep: the caller drops it together with the socket.
    ///
    /// # Errors
    /// The kernel's: no descriptors left, or no memory.
    pub fn new(socket: &UdpSocket) -> io::Result<(Self, Waker)> {
        // SAFETY: no pointers are passed.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: no pointers are passed.
        let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        watch(&epoll, socket.as_raw_fd(), SOCKET)?;
        watch(&epoll, event.as_raw_fd(), WAKER)?;
        let event = Arc::new(File::from(event));
        Ok((Self { epoll, event: Arc::clone(&event) }, Waker(event)))
    }

    /// Blocks until something is ready or `timeout` has passed (`None`: for ever). The time is rounded up to a
    /// whole millisecond, so that a caller who waits for a deadline never wakes before it and spins.
    ///
    /// # Errors
    /// None that a caller could mend; a signal is not an error.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        let timeout = timeout
            .map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: `events` is a live, writable array of the length that is passed.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                timeout,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(Ready::default())
            } else {
                Err(error)
            };
        };
        let mut ready = Ready::default();
        for event in events.iter().take(count) {
            match event.u64 {
                SOCKET => ready.socket = true,
                _ => ready.woken = true,
            }
        }
        if ready.woken {
            // Would block only if it was not set, which is all the same: it is not set afterwards.
            let _ = (&*self.event).read(&mut [0; 8]);
        }
        Ok(ready)
    }
}

impl Waker {
    /// Ends the present wait, or the next one. Wake-ups that were not yet noticed merge.
    pub fn wake(&self) {
        // Would block only where 2⁶⁴ − 2 wake-ups are pending: it is awake.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn watch(epoll: &OwnedFd, fd: RawFd, name: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: name };
    // SAFETY: `event` is live for the length of the call; the kernel copies it.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Far more than any of it takes; only a failure waits that long.
    const CEILING: Option<Duration> = Some(Duration::from_secs(10));

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), 1 << 16).expect("loopback")
    }

    #[test]
    fn a_waker_ends_the_wait_from_another_thread() {
        let socket = socket();
        let (poller, waker) = Poller::new(&socket).expect("poller");
        let thread = std::thread::spawn(move || waker.wake());
        assert_eq!(poller.wait(CEILING).expect("wait"), Ready { socket: false, woken: true });
        thread.join().expect("no panic");
    }

    #[test]
    fn wake_ups_before_the_wait_merge_into_one() {
        let socket = socket();
        let (poller, waker) = Poller::new(&socket).expect("poller");
        waker.wake();
        waker.clone().wake();
        assert!(poller.wait(CEILING).expect("wait").woken);
        assert_eq!(poller.wait(Some(Duration::ZERO)).expect("wait"), Ready::default());
    }

    #[test]
    fn a_datagram_makes_the_socket_ready_until_it_is_read() {
        let socket = socket();
        let (poller, waker) = Poller::new(&socket).expect("poller");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        sender.send_to(b"x", socket.local_addr()).expect("send");
        let ready = Ready { socket: true, woken: false };
        assert_eq!(poller.wait(CEILING).expect("wait"), ready);
        waker.wake();
        assert_eq!(poller.wait(CEILING).expect("wait"), Ready { socket: true, woken: true });
        assert_eq!(poller.wait(CEILING).expect("wait"), ready);
        let mut batch = super::super::ReceiveBatch::new();
        assert_eq!(socket.receive(&mut batch).expect("receive"), 1);
        assert_eq!(poller.wait(Some(Duration::ZERO)).expect("wait"), Ready::default());
    }

    #[test]
    fn a_wait_never_ends_before_its_time() {
        let socket = socket();
        let (poller, _waker) = Poller::new(&socket).expect("poller");
        let start = Instant::now();
        poller.wait(Some(Duration::from_micros(1500))).expect("wait");
        assert!(start.elapsed() >= Duration::from_micros(1500));
    }
}
