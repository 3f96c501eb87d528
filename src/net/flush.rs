//! What becomes of a batch where the kernel refuses a part of it: no system calls, so that every refusal can
//! be tested.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer::{Cursor, SendBatch};

/// Messages in one system call. Higher saves nothing: the call itself is a hundredth of their cost; lower
/// begins to show.
pub(super) const SEND_MESSAGES: usize = 64;

/// What a refused message means for its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The path to this receiver takes no runs (its MTU is too small, say): the run was sent again as single
    /// datagrams, nothing is lost, and it is better to push with `segment: false` from now on.
    DropGso,
    /// This datagram is lost; others, to the same receiver too, are not concerned.
    Other,
    /// The socket's buffer is full: this datagram and all after it are lost. Media is not queued here, because
    /// what waits behind a full buffer is late when it leaves.
    WouldBlock,
}

/// Gives all of `batch` to `transmit`, which says how many messages the kernel took. `on_error` is called
/// once for each datagram that is lost and once for each run that had to be taken apart.
pub(super) fn flush(
    batch: &SendBatch,
    gso: &AtomicBool,
    mut transmit: impl FnMut(Cursor<'_>) -> io::Result<usize>,
    on_error: &mut dyn FnMut(u32, &io::Error, SendFailure),
) {
    let mut cursor = batch.cursor(gso.load(Ordering::Relaxed));
    while let Some(first) = cursor.clone().next() {
        // The kernel reports an error only where it concerns the first message; in the middle it returns early,
        // and the next call meets the same message first.
        let error = match transmit(cursor.clone()) {
            Ok(0) => io::ErrorKind::WouldBlock.into(),
            Ok(sent) => {
                cursor.by_ref().take(sent).for_each(drop);
                continue;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EINVAL | libc::EMSGSIZE) if first.datagrams() > 1 => {
                cursor.split_run();
                on_error(first.tag, &error, SendFailure::DropGso);
            }
            // The network card cannot compute the checksums of a run: no path through it will ever work.
            Some(libc::EIO) if first.datagrams() > 1 => {
                cursor.split_all();
                if gso.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        "the network device cannot segment UDP: sending costs several times more CPU"
                    );
                }
            }
            _ if error.kind() == io::ErrorKind::WouldBlock => {
                for lost in cursor {
                    (0..lost.datagrams()).for_each(|_| on_error(lost.tag, &error, SendFailure::WouldBlock));
                }
                return;
            }
            _ => {
                cursor.next();
                (0..first.datagrams()).for_each(|_| on_error(first.tag, &error, SendFailure::Other));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AddressPair;
    use proptest::prelude::*;

    fn pair(receiver: u32) -> AddressPair {
        let port = 1000 + receiver as u16;
        AddressPair { local: None, remote: (std::net::Ipv4Addr::LOCALHOST, port).into() }
    }

    /// `datagrams`: receiver and length. Each carries its own index in its first two bytes.
    fn batch(datagrams: &[(u32, usize)]) -> SendBatch {
        let mut batch = SendBatch::new();
        for (index, &(receiver, len)) in datagrams.iter().enumerate() {
            batch.space().expect("room")[..2].copy_from_slice(&(index as u16).to_be_bytes());
            batch.push(pair(receiver), receiver, true, len);
        }
        batch
    }

    /// A kernel that answers each call by `script` (its message is the first offered) and then takes everything.
    struct Kernel {
        script: Vec<Result<usize, i32>>,
        delivered: Vec<u16>,
        refused: Vec<(u32, SendFailure)>,
        gso: AtomicBool,
    }

    impl Kernel {
        fn new(script: &[Result<usize, i32>]) -> Self {
            let script = script.iter().rev().copied().collect();
            Self { script, delivered: Vec::new(), refused: Vec::new(), gso: AtomicBool::new(true) }
        }

        fn flush(&mut self, batch: &SendBatch) {
            let Self { script, delivered, refused, gso } = self;
            let transmit = |messages: Cursor<'_>| match script.pop().unwrap_or(Ok(SEND_MESSAGES)) {
                Err(errno) => Err(io::Error::from_raw_os_error(errno)),
                Ok(count) => {
                    let mut taken = 0;
                    for message in messages.take(count) {
                        taken += 1;
                        for datagram in batch.bytes(&message).chunks(message.segment) {
                            delivered.push(u16::from_be_bytes([datagram[0], datagram[1]]));
                        }
                    }
                    Ok(taken)
                }
            };
            flush(batch, gso, transmit, &mut |tag, _, failure| refused.push((tag, failure)));
        }
    }

    #[test]
    fn a_run_that_its_path_refuses_goes_singly_and_the_others_stay_runs() {
        for errno in [libc::EINVAL, libc::EMSGSIZE] {
            let mut calls = 0;
            let batch = batch(&[(1, 100), (1, 100), (2, 100), (2, 100)]);
            let mut kernel = Kernel::new(&[Err(errno)]);
            kernel.flush(&batch);
            assert_eq!(kernel.delivered, [0, 1, 2, 3]);
            assert_eq!(kernel.refused, [(1, SendFailure::DropGso)]);
            assert!(kernel.gso.load(Ordering::Relaxed));
            flush(
                &batch,
                &kernel.gso,
                |messages| Ok(messages.inspect(|_| calls += 1).count()),
                &mut |_, _, _| (),
            );
            assert_eq!(calls, 2, "both are runs");
        }
    }

    #[test]
    fn a_device_that_cannot_segment_ends_runs_for_the_socket() {
        let batch = batch(&[(1, 100), (1, 100), (2, 100), (2, 90)]);
        let mut kernel = Kernel::new(&[Err(libc::EIO)]);
        kernel.flush(&batch);
        assert_eq!(kernel.delivered, [0, 1, 2, 3]);
        assert_eq!(kernel.refused, []);
        assert!(!kernel.gso.load(Ordering::Relaxed));
        let mut messages = 0;
        flush(
            &batch,
            &kernel.gso,
            |offered| Ok(offered.inspect(|_| messages += 1).count()),
            &mut |_, _, _| (),
        );
        assert_eq!(messages, 4);
    }

    #[test]
    fn an_error_of_one_receiver_skips_only_its_message() {
        for errno in [libc::ENOBUFS, libc::ECONNREFUSED, libc::EPERM, libc::EHOSTUNREACH, libc::EACCES] {
            let mut kernel = Kernel::new(&[Ok(1), Err(errno)]);
            kernel.flush(&batch(&[(1, 100), (2, 100), (2, 100), (3, 100)]));
            assert_eq!(kernel.delivered, [0, 3]);
            assert_eq!(kernel.refused, [(2, SendFailure::Other); 2]);
        }
    }

    #[test]
    fn a_single_datagram_that_is_refused_is_lost_and_not_tried_again() {
        let mut kernel = Kernel::new(&[Err(libc::EINVAL), Err(libc::EMSGSIZE), Err(libc::EIO)]);
        kernel.flush(&batch(&[(1, 100), (2, 100), (3, 100), (4, 100)]));
        assert_eq!(kernel.delivered, [3]);
        assert_eq!(
            kernel.refused,
            [(1, SendFailure::Other), (2, SendFailure::Other), (3, SendFailure::Other)]
        );
        assert!(kernel.gso.load(Ordering::Relaxed), "EIO says something about runs only");
    }

    #[test]
    fn a_full_socket_buffer_drops_the_rest_and_says_so() {
        let mut kernel = Kernel::new(&[Ok(1), Err(libc::EAGAIN)]);
        kernel.flush(&batch(&[(1, 100), (2, 100), (2, 100), (3, 100)]));
        assert_eq!(kernel.delivered, [0]);
        let lost = [2, 2, 3].map(|tag| (tag, SendFailure::WouldBlock));
        assert_eq!(kernel.refused, lost);
    }

    #[test]
    fn an_interrupted_call_is_repeated() {
        let mut kernel = Kernel::new(&[Err(libc::EINTR), Ok(1), Err(libc::EINTR)]);
        kernel.flush(&batch(&[(1, 100), (2, 100)]));
        assert_eq!(kernel.delivered, [0, 1]);
        assert_eq!(kernel.refused, []);
    }

    proptest! {
        #[test]
        fn every_datagram_is_delivered_or_reported_exactly_once_and_in_order(
            datagrams in prop::collection::vec((0_u32..4, prop::sample::select(vec![90_usize, 100])), 0..150),
            script in prop::collection::vec(prop_oneof![
                3 => (1_usize..5).prop_map(Ok),
                1 => prop::sample::select(vec![libc::EINTR, libc::EINVAL, libc::EMSGSIZE, libc::EIO, libc::EAGAIN,
                    libc::ENOBUFS, libc::EPERM]).prop_map(Err),
            ], 0..40),
        ) {
            let mut kernel = Kernel::new(&script);
            kernel.flush(&batch(&datagrams));
            prop_assert!(kernel.delivered.is_sorted_by(|a, b| a < b));
            let mut accounted: Vec<u32> =
                kernel.delivered.iter().map(|&index| datagrams[usize::from(index)].0).collect();
            let lost = kernel.refused.iter().filter(|(_, failure)| *failure != SendFailure::DropGso);
            accounted.extend(lost.map(|(tag, _)| tag));
            accounted.sort_unstable();
            let mut pushed: Vec<u32> = datagrams.iter().map(|&(receiver, _)| receiver).collect();
            pushed.sort_unstable();
            prop_assert_eq!(accounted, pushed);
        }
    }
}
