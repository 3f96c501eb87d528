//! The receiving side: notes arrivals, writes feedback.

use std::time::Duration;

use super::{LARGE_DELTA, NOT_RECEIVED, SMALL_DELTA, TICK};
use crate::rtp::rtcp::Body;
use crate::rtp::seq;

/// Numbers that are remembered, a power of two. Higher costs 4 bytes each per publisher, lower forgets arrivals of a
/// fast publisher before they are reported (100 ms at 80 Mbit/s are some 900 packets).
const WINDOW: u16 = 1024;

/// How far behind the first unreported number a late packet is still reported, with everything after it once more.
/// Higher makes feedback longer after reordering, lower lets the sender take late packets for lost ones.
const REPORT_AGAIN: u16 = 256;

/// Of one feedback packet with its SSRCs, so that with a report before it and SRTCP's trailer after it a datagram
/// stays below 1232 bytes.
const MAX_LEN: usize = 1150;
/// RTCP header and both SSRCs.
const HEAD: usize = 12;
/// Base, count, reference time and feedback count.
const FIXED: usize = 8;

/// Every chunk but the last stands for at least seven packets.
const MAX_CHUNKS: usize = WINDOW as usize / 7 + 2;

/// The arrivals of one transport.
///
/// [`Recorder::record`] for each packet; every 50 to 100 ms, while [`Recorder::is_pending`],
/// [`Writer::transport_cc`](crate::rtp::rtcp::Writer::transport_cc). Memory is fixed, and work is bounded by the 1024
/// newest numbers, however a publisher numbers its packets.
#[derive(Debug)]
pub struct Recorder {
    /// Arrival of each number, modulo the window, in ticks; they wrap with the 24-bit reference time (12 days).
    arrivals: Box<[u32; WINDOW as usize]>,
    /// Which of the numbers were received.
    received: [u64; WINDOW as usize / 64],
    /// The first number that was not reported.
    next: u16,
    /// The number after the newest; at most `WINDOW` after `next`. Equal where nothing is to be reported.
    end: u16,
    started: bool,
    feedback_count: u8,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            arrivals: Box::new([0; WINDOW as usize]),
            received: [0; WINDOW as usize / 64],
            next: 0,
            end: 0,
            started: false,
            feedback_count: 0,
        }
    }
}

impl Recorder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the arrival of a packet. `arrival` counts from any fixed instant.
    #[inline]
    pub fn record(&mut self, sequence: u16, arrival: Duration) {
        const LIMIT: i16 = WINDOW.cast_signed();
        let ahead = seq::distance(self.end, sequence);
        if !self.started || !(-LIMIT..LIMIT).contains(&ahead) {
            // The numbering began or leapt: what lies between was never sent, and reporting it as lost would make
            // a sender slow down for nothing.
            self.started = true;
            self.received = [0; WINDOW as usize / 64];
            (self.next, self.end) = (sequence, sequence.wrapping_add(1));
        } else if ahead >= 0 {
            for skipped in 0..ahead.cast_unsigned() {
                self.forget(self.end.wrapping_add(skipped));
            }
            self.end = sequence.wrapping_add(1);
            if self.end.wrapping_sub(self.next) > WINDOW {
                self.next = self.end.wrapping_sub(WINDOW);
            }
        } else {
            let behind = seq::distance(sequence, self.next);
            if self.arrival(sequence).is_some() || behind > REPORT_AGAIN.cast_signed() {
                return; // the first arrival counts
            }
            if behind > 0 {
                self.next = sequence;
            }
        }
        let index = usize::from(sequence % WINDOW);
        self.arrivals[index] = ticks(arrival);
        self.received[index / 64] |= 1 << (index % 64);
    }

    /// Whether there is something to report.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.next != self.end
    }

    /// Writes one feedback packet's body after its SSRCs, about as many of the unreported numbers as fit, and counts
    /// them as reported. `None`, with nothing changed here, where the buffer is too short: 40 bytes, the head
    /// of the packet included, always suffice for some.
    pub(in crate::rtp) fn write(&mut self, body: &mut Body<'_>) -> Option<()> {
        let plan = self.plan(body.space().min(MAX_LEN - HEAD))?;
        body.u16(self.next)?;
        body.u16(plan.packets)?;
        body.u32((plan.reference >> 8) << 8 | u32::from(self.feedback_count))?;
        for chunk in &plan.chunks[..plan.chunk_count] {
            body.u16(*chunk)?;
        }
        let mut last = plan.reference;
        for sequence in (0..plan.packets).map(|n| self.next.wrapping_add(n)) {
            let Some(arrival) = self.arrival(sequence) else { continue };
            let delta = arrival.wrapping_sub(last).cast_signed();
            last = arrival;
            if let Ok(small) = u8::try_from(delta) {
                body.bytes(&[small])?;
            } else {
                body.u16(delta as i16 as u16)?; // in range: the plan ends before one that is not
            }
        }
        body.align()?;
        self.next = self.next.wrapping_add(plan.packets);
        self.feedback_count = self.feedback_count.wrapping_add(1);
        Some(())
    }

    /// Chooses the chunks of a feedback packet of at most `space` bytes after its SSRCs.
    fn plan(&self, space: usize) -> Option<Plan> {
        let mut symbols = [NOT_RECEIVED; WINDOW as usize];
        let (symbols, reference) = self.symbols(&mut symbols);
        let mut plan = Plan { packets: 0, reference: reference?, chunks: [0; MAX_CHUNKS], chunk_count: 0 };
        let space = space & !3; // the end is aligned
        let (mut rest, mut used, mut received) = (symbols, FIXED, false);
        while !rest.is_empty() {
            let (chunk, len) = encode_chunk(rest, space.saturating_sub(used + 2));
            let (covered, after) = rest.split_at(len);
            // A status is also the size of its delta.
            let cost = 2 + covered.iter().map(|&status| usize::from(status)).sum::<usize>();
            if used + cost > space || plan.chunk_count == MAX_CHUNKS {
                break;
            }
            plan.chunks[plan.chunk_count] = chunk;
            plan.chunk_count += 1;
            plan.packets += len as u16;
            used += cost;
            received |= covered.iter().any(|&status| status != NOT_RECEIVED);
            rest = after;
        }
        received.then_some(plan)
    }

    /// The status of each unreported packet up to the first whose delta does not fit 16 bits (8 s), and the reference
    /// time in ticks, a multiple of 256.
    fn symbols<'a>(&self, symbols: &'a mut [u8; WINDOW as usize]) -> (&'a [u8], Option<u32>) {
        let count = usize::from(self.end.wrapping_sub(self.next));
        let mut reference = None;
        let mut last = 0;
        for n in 0..count {
            let Some(arrival) = self.arrival(self.next.wrapping_add(n as u16)) else { continue };
            if reference.is_none() {
                last = arrival & !0xFF;
                reference = Some(last);
            }
            symbols[n] = match arrival.wrapping_sub(last).cast_signed() {
                0..=0xFF => SMALL_DELTA,
                -0x8000..=0x7FFF => LARGE_DELTA,
                _ => return (&symbols[..n], reference),
            };
            last = arrival;
        }
        (&symbols[..count], reference)
    }

    fn arrival(&self, sequence: u16) -> Option<u32> {
        let index = usize::from(sequence % WINDOW);
        (self.received[index / 64] >> (index % 64) & 1 == 1).then(|| self.arrivals[index])
    }

    fn forget(&mut self, sequence: u16) {
        let index = usize::from(sequence % WINDOW);
        self.received[index / 64] &= !(1 << (index % 64));
    }
}

/// The content of one feedback packet.
struct Plan {
    /// How many numbers it covers.
    packets: u16,
    /// In ticks.
    reference: u32,
    chunks: [u16; MAX_CHUNKS],
    chunk_count: usize,
}

/// The chunk that stands for the most of `symbols`, and for how many. A run is cut to deltas of `space` bytes; the
/// deltas of other chunks take at most 14.
fn encode_chunk(symbols: &[u8], space: usize) -> (u16, usize) {
    let affordable = space.checked_div(symbols[0].into()).unwrap_or(usize::MAX);
    let run = symbols.iter().take_while(|&&status| status == symbols[0]).count().min(affordable);
    let bits = symbols.len().min(14);
    let only_bits = symbols[..bits].iter().all(|&status| status <= SMALL_DELTA);
    if run >= 14 || run == symbols.len() || run >= 7 && !only_bits {
        return (u16::from(symbols[0]) << 13 | run as u16, run);
    }
    // Symbols stand from the high bits down; what remains of the last chunk stays 0.
    let pack = |len: usize, width: usize, places: usize| {
        let place = |n: usize| width * (places - 1 - n);
        symbols[..len].iter().enumerate().fold(0, |all, (n, &status)| all | u16::from(status) << place(n))
    };
    if only_bits {
        return (0x8000 | pack(bits, 1, 14), bits);
    }
    let pairs = symbols.len().min(7);
    (0xC000 | pack(pairs, 2, 7), pairs)
}

fn ticks(arrival: Duration) -> u32 {
    const PER_SECOND: u64 = 1_000_000_000 / TICK.as_nanos() as u64;
    let part = arrival.subsec_nanos() / TICK.subsec_nanos();
    arrival.as_secs().wrapping_mul(PER_SECOND).wrapping_add(part.into()) as u32
}
