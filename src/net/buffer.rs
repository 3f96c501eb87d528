//! The memory between the kernel and the packet path: what one call received, and what the next will send.

use std::iter::FusedIterator;
use std::slice;
use std::time::SystemTime;

use crate::id::AddressPair;

/// Messages in one receive call. Higher delays the first packet's forwarding by those after it; lower costs
/// more system calls.
pub const RECEIVE_MESSAGES: usize = 32;

/// Bytes for each received message: the kernel merges datagrams of one sender into messages of up to 64 KiB.
const RECEIVE_BYTES: usize = 1 << 16;

/// Bytes that [`SendBatch::space`] gives: an Ethernet frame, and more than is ever sent (1232 B, and
/// handshake datagrams).
pub const SPACE: usize = 1500;

/// Bytes of a send batch. Higher makes longer runs where a flush is forced by it, and falls out of the
/// second-level cache between sealing and the kernel's copy; lower flushes in the middle of a frame.
const ARENA_BYTES: usize = 256 << 10;

/// Messages of a send batch, each at most one run. Higher costs memory (about 80 B each); lower flushes
/// early where every receiver gets one small audio packet.
const ARENA_RUNS: usize = 1024;

/// Datagrams in one run; the kernel's `UDP_MAX_SEGMENTS` before 6.9.
const RUN_DATAGRAMS: usize = 64;

/// Bytes in one run: a run is one IP packet on its way through the kernel, which must stay below 64 KiB with
/// its headers.
const RUN_BYTES: usize = 65_000;

/// What one call of [`super::UdpSocket::receive`] received.
#[derive(Debug)]
pub struct ReceiveBatch {
    /// One stripe of `stride` bytes for each message.
    pub(super) bytes: Box<[u8]>,
    pub(super) stride: usize,
    /// Parallel to the stripes; `None` where the message is refused.
    pub(super) messages: Vec<Option<Received>>,
    too_long: usize,
}

/// One message of the kernel: equal datagrams of one sender, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) pair: AddressPair,
    pub(super) len: usize,
    /// Length of each datagram but the last; at least 1.
    pub(super) segment: usize,
    /// When the kernel received it (the first datagram of several), by the system's clock.
    pub(super) arrived: Option<SystemTime>,
}

impl ReceiveBatch {
    /// Room for what the kernel gives at most: 2 MiB, of which pages that are never needed are never touched.
    #[must_use]
    pub fn new() -> Self {
        Self::with_message_size(RECEIVE_BYTES)
    }

    /// Room for messages of `stride` bytes (at least 1); longer ones are refused.
    #[must_use]
    pub fn with_message_size(stride: usize) -> Self {
        let stride = stride.max(1);
        Self {
            bytes: vec![0; stride * RECEIVE_MESSAGES].into_boxed_slice(),
            stride,
            messages: Vec::with_capacity(RECEIVE_MESSAGES),
            too_long: 0,
        }
    }

    /// The datagrams, each with its sender and the address it was sent to, in the order of arrival. An empty
    /// datagram is one, too.
    pub fn datagrams(&mut self) -> impl FusedIterator<Item = (AddressPair, &mut [u8])> {
        self.arrivals().map(|(_, pair, datagram)| (pair, datagram))
    }

    /// As [`datagrams`](Self::datagrams), each with the time at which the kernel received it, where it says so: the
    /// process may have got its turn only later.
    pub fn arrivals(&mut self) -> Arrivals<'_> {
        Arrivals {
            messages: self.bytes.chunks_exact_mut(self.stride).zip(self.messages.iter()),
            current: None,
        }
    }

    /// How many messages of this batch did not fit and were dropped: to be counted as
    /// [`TooLong`](crate::observe::reason::Reason::TooLong).
    #[must_use]
    pub fn too_long(&self) -> usize {
        self.too_long
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.too_long = 0;
    }

    /// The next message, or `None` for one that was truncated.
    pub(super) fn add(&mut self, message: Option<Received>) {
        self.too_long += usize::from(message.is_none());
        self.messages.push(message);
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// The datagrams of a [`ReceiveBatch`], to be read and decrypted in place.
#[derive(Debug)]
pub struct Arrivals<'a> {
    messages: std::iter::Zip<slice::ChunksExactMut<'a, u8>, slice::Iter<'a, Option<Received>>>,
    /// What is left of a message after its first datagram.
    current: Option<(&'a Received, &'a mut [u8])>,
}

impl<'a> Iterator for Arrivals<'a> {
    type Item = (Option<SystemTime>, AddressPair, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (message, bytes) = match self.current.take() {
            Some(current) => current,
            None => {
                let (stripe, message) = self.messages.find(|(_, message)| message.is_some())?;
                let message = message.as_ref()?;
                (message, stripe.get_mut(..message.len)?)
            }
        };
        let (datagram, rest) = bytes.split_at_mut(message.segment.min(bytes.len()));
        if !rest.is_empty() {
            self.current = Some((message, rest));
        }
        Some((message.arrived, message.pair, datagram))
    }
}

impl FusedIterator for Arrivals<'_> {}

/// Datagrams that wait for [`super::UdpSocket::send`], in one piece of memory: written in place, grouped into
/// runs as they come.
#[derive(Debug)]
pub struct SendBatch {
    arena: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
}

/// Datagrams that follow each other in the arena and may leave as one message of the kernel.
#[derive(Clone, Copy, Debug)]
struct Run {
    pair: AddressPair,
    tag: u32,
    start: usize,
    len: usize,
    /// Length of each datagram but the last, which may be shorter.
    segment: usize,
    /// Whether another datagram may join.
    open: bool,
}

impl SendBatch {
    /// Room for about 200 datagrams of 1232 B.
    #[must_use]
    pub fn new() -> Self {
        Self { arena: vec![0; ARENA_BYTES].into_boxed_slice(), used: 0, runs: Vec::with_capacity(ARENA_RUNS) }
    }

    /// Where the next datagram is to be written: [`SPACE`] bytes with arbitrary contents, or `None` where the
    /// batch is full and has to be sent first.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        if self.runs.len() == ARENA_RUNS {
            return None;
        }
        self.arena.get_mut(self.used..self.used + SPACE)
    }

    /// Adds the first `len` bytes of [`space`](Self::space) as one datagram to `pair`. `tag` names the receiver
    /// in errors. With `segment`, it may leave in one run with its neighbours: those to the same receiver,
    /// pushed one after the other, of equal length but for the last, which may be shorter.
    ///
    /// Nothing is added where `len` is 0 or more than there was space for.
    pub fn push(&mut self, pair: AddressPair, tag: u32, segment: bool, len: usize) {
        let fits = len > 0 && len <= SPACE && self.space().is_some();
        debug_assert!(fits, "{len} bytes were pushed without space for them");
        if !fits {
            return;
        }
        let start = self.used;
        self.used += len;
        match self.runs.last_mut() {
            Some(run) if segment && run.takes(pair, tag, len) => {
                run.len += len;
                run.open = len == run.segment;
            }
            _ => self.runs.push(Run { pair, tag, start, len, segment: len, open: segment }),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets what was pushed.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.used = 0;
    }

    /// The datagrams in the order in which they were pushed, as they would arrive.
    pub fn datagrams(&self) -> impl Iterator<Item = (AddressPair, &[u8])> {
        self.cursor(false).map(|message| (message.pair, self.bytes(&message)))
    }

    /// The messages for the kernel: runs where `gso` is true, else single datagrams.
    pub(super) fn cursor(&self, gso: bool) -> Cursor<'_> {
        Cursor { runs: &self.runs, run: 0, done: 0, gso, split: None }
    }

    pub(super) fn bytes(&self, message: &Message) -> &[u8] {
        &self.arena[message.start..message.start + message.len]
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Run {
    fn takes(&self, pair: AddressPair, tag: u32, len: usize) -> bool {
        self.open
            && self.tag == tag
            && self.pair == pair
            && len <= self.segment
            && self.len < self.segment * RUN_DATAGRAMS
            && self.len + len <= RUN_BYTES
    }
}

/// One message for the kernel: one datagram, or several of equal length (but for the last) in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) pair: AddressPair,
    pub(super) tag: u32,
    /// Within the arena.
    start: usize,
    len: usize,
    /// Length of each datagram but the last.
    pub(super) segment: usize,
}

impl Message {
    pub(super) fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment)
    }
}

/// The messages of a batch that are not yet sent.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    runs: &'a [Run],
    /// Index of the next message's run …
    run: usize,
    /// … of which this many bytes are sent, or given up.
    done: usize,
    gso: bool,
    /// The one run that goes singly although others do not.
    split: Option<usize>,
}

impl Cursor<'_> {
    /// Takes the run of the next message apart.
    pub(super) fn split_run(&mut self) {
        self.split = Some(self.run);
    }

    /// Takes all runs apart.
    pub(super) fn split_all(&mut self) {
        self.gso = false;
    }
}

impl Iterator for Cursor<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let run = self.runs.get(self.run)?;
        let left = run.len - self.done;
        let whole = self.gso && self.split != Some(self.run);
        let len = if whole { left } else { left.min(run.segment) };
        let start = run.start + self.done;
        self.done += len;
        if self.done == run.len {
            self.run += 1;
            self.done = 0;
        }
        Some(Message { pair: run.pair, tag: run.tag, start, len, segment: run.segment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(port: u16) -> AddressPair {
        AddressPair { local: None, remote: (std::net::Ipv4Addr::LOCALHOST, port).into() }
    }

    /// Lengths of the messages that a batch of `(port, segment, len)` becomes, as (datagrams, bytes).
    fn messages(datagrams: &[(u16, bool, usize)]) -> Vec<(usize, usize)> {
        let mut batch = SendBatch::new();
        for &(port, segment, len) in datagrams {
            batch.space().expect("room");
            batch.push(pair(port), u32::from(port), segment, len);
        }
        batch.cursor(true).map(|message| (message.datagrams(), message.len)).collect()
    }

    #[test]
    fn equal_neighbours_of_one_receiver_become_one_run_which_a_shorter_one_ends() {
        let lens = [100, 100, 60, 60, 60];
        assert_eq!(messages(&lens.map(|len| (1, true, len))), [(3, 260), (2, 120)]);
    }

    #[test]
    fn a_longer_datagram_another_receiver_or_a_switch_begins_a_new_message() {
        assert_eq!(messages(&[(1, true, 100), (1, true, 101)]), [(1, 100), (1, 101)]);
        assert_eq!(messages(&[(1, true, 100), (2, true, 100), (1, true, 100)]), [(1, 100); 3]);
        assert_eq!(messages(&[(1, false, 100), (1, false, 100)]), [(1, 100); 2]);
        assert_eq!(messages(&[(1, true, 100), (1, false, 100), (1, true, 100)]), [(1, 100); 3]);
        assert_eq!(messages(&[(1, false, 100), (1, true, 100)]), [(1, 100); 2]);
    }

    #[test]
    fn a_run_stays_within_the_kernels_limits() {
        assert_eq!(messages(&[(1, true, 100); 65]), [(64, 6400), (1, 100)]);
        assert_eq!(messages(&[(1, true, 1500); 44]), [(43, 64_500), (1, 1500)]);
    }

    #[test]
    fn a_full_batch_says_so_and_is_empty_after_clear() {
        for len in [1, SPACE] {
            let mut batch = SendBatch::new();
            let mut pushed = 0;
            while let Some(space) = batch.space() {
                assert_eq!(space.len(), SPACE);
                batch.push(pair(1), 1, false, len);
                pushed += 1;
            }
            assert_eq!(batch.datagrams().count(), pushed);
            batch.clear();
            assert!(batch.is_empty() && batch.space().is_some());
        }
    }

    #[test]
    fn messages_are_split_at_their_segment_size_and_refused_ones_are_skipped() {
        let mut batch = ReceiveBatch::with_message_size(10);
        for (index, byte) in batch.bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        batch.add(Some(Received { pair: pair(1), len: 10, segment: 4, arrived: None }));
        batch.add(None);
        batch.add(Some(Received { pair: pair(2), len: 0, segment: 1, arrived: None }));
        batch.add(Some(Received { pair: pair(3), len: 4, segment: 9, arrived: None }));
        let datagrams: Vec<_> =
            batch.datagrams().map(|(pair, bytes)| (pair.remote.port(), bytes.to_vec())).collect();
        let expected: [(u16, &[u8]); 5] =
            [(1, &[0, 1, 2, 3]), (1, &[4, 5, 6, 7]), (1, &[8, 9]), (2, &[]), (3, &[30, 31, 32, 33])];
        assert_eq!(datagrams, expected.map(|(port, bytes)| (port, bytes.to_vec())));
        assert_eq!(batch.too_long(), 1);
        batch.clear();
        assert_eq!((batch.datagrams().count(), batch.too_long()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_pushed_comes_out_in_order_whatever_the_runs(
            datagrams in prop::collection::vec(
                (0_u16..3, any::<bool>(), prop::sample::select(vec![1_usize, 99, 100, 1500])), 0..150),
        ) {
            let mut batch = SendBatch::new();
            for (index, &(port, segment, len)) in datagrams.iter().enumerate() {
                batch.space().expect("room")[..len].fill(index as u8);
                batch.push(pair(port), 7, segment, len);
            }
            let out: Vec<_> = batch.datagrams().map(|(pair, bytes)| (pair.remote.port(), bytes.to_vec())).collect();
            let expected: Vec<_> = datagrams.iter().enumerate()
                .map(|(index, &(port, _, len))| (port, vec![index as u8; len])).collect();
            prop_assert_eq!(&out, &expected);
            // As runs they are the same bytes, and each run is one that the kernel takes.
            let mut split = Vec::new();
            for message in batch.cursor(true) {
                prop_assert!(message.datagrams() <= RUN_DATAGRAMS && message.len <= RUN_BYTES);
                let port = message.pair.remote.port();
                split.extend(batch.bytes(&message).chunks(message.segment).map(|bytes| (port, bytes.to_vec())));
            }
            prop_assert_eq!(&split, &expected);
        }
    }
}
