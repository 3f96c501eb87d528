//! Prepared pictures: a VP8 stream out of an IVF file, played in a loop, as RTP payloads (RFC 7741).

use std::time::Duration;

/// Bytes of VP8 in a packet at most: with headers, SRTP's tag and UDP below what any path takes.
const MAX_PAYLOAD: usize = 1100;
/// Size of the descriptor that [`Pictures::next`] writes.
const DESCRIPTOR: usize = 4;

const FILE_HEADER: usize = 32;
const FRAME_HEADER: usize = 12;

/// The frames of a file, and which comes next.
pub(crate) struct Pictures {
    frames: Vec<&'static [u8]>,
    interval: Duration,
    next: usize,
    keyframe_wanted: bool,
    picture_id: u16,
}

impl Pictures {
    /// Reads the file; `None` where it is not VP8 in IVF, or does not begin with a keyframe.
    pub(crate) fn read(file: &'static [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        if file.get(..4)? != b"DKIF" || file.get(8..12)? != b"VP80" {
            return None;
        }
        let (rate, scale) = (word(16)?, word(20)?);
        let interval = Duration::from_secs(scale.into()).checked_div(rate)?;
        let mut frames = Vec::new();
        let mut at = FILE_HEADER;
        while at < file.len() {
            let len = usize::try_from(word(at)?).ok()?;
            at += FRAME_HEADER;
            frames.push(file.get(at..at.checked_add(len)?)?);
            at += len;
        }
        let first = frames.first()?;
        is_keyframe(first).then_some(Self {
            frames,
            interval,
            next: 0,
            keyframe_wanted: false,
            picture_id: 0x7ff0,
        })
    }

    /// Time from one frame to the next.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Whoever watches cannot go on: the next frame is to be a keyframe.
    pub(crate) fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// The next frame as payloads of RTP packets; the last one gets the marker.
    ///
    /// Every packet of every frame has a picture id of 15 bits: browsers freeze where only some frames have one.
    pub(crate) fn next(&mut self) -> Vec<Vec<u8>> {
        let count = self.frames.len();
        if std::mem::take(&mut self.keyframe_wanted) {
            // Forward from here; the file begins with one, so that the search ends.
            while !is_keyframe(self.frames[self.next]) {
                self.next = (self.next + 1) % count;
            }
        }
        let frame = self.frames[self.next];
        self.next = (self.next + 1) % count;
        let id = (self.picture_id | 0x8000).to_be_bytes();
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let packet = |(index, part): (usize, &[u8])| {
            let mut payload = Vec::with_capacity(DESCRIPTOR + part.len());
            // X is set; S on the first packet of the frame, whose only partition number is 0.
            payload.push(if index == 0 { 0x90 } else { 0x80 });
            payload.push(0x80); // I: a picture id follows
            payload.extend(id);
            payload.extend(part);
            payload
        };
        frame.chunks(MAX_PAYLOAD - DESCRIPTOR).enumerate().map(packet).collect()
    }
}

/// RFC 6386 §9.1: the lowest bit of the frame tag is 0.
fn is_keyframe(frame: &[u8]) -> bool {
    frame.first().is_some_and(|tag| tag & 1 == 0)
}
