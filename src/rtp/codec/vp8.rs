//! The VP8 payload descriptor (RFC 7741 §4.2) and as much of the frame header as tells keyframes and sizes.
//!
//! ```text
//!      0 1 2 3 4 5 6 7
//!     +-+-+-+-+-+-+-+-+
//!     |X|R|N|S|R| PID |
//! X:  |I|L|T|K|  RSV  |
//! I:  |M| picture id  |  with M a second byte follows: 15 bits instead of 7
//! L:  |   TL0PICIDX   |
//! T/K:|TID|Y| KEYIDX  |
//!     +-+-+-+-+-+-+-+-+
//! ```

use crate::observe::reason::Reason;

/// A parsed descriptor, with the places of what is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The first packet of a frame: it starts partition 0.
    pub start_of_frame: bool,
    /// The first packet of a keyframe. Later packets of that frame do not tell.
    pub keyframe: bool,
    /// No other frame refers to this one: it can be dropped alone.
    pub discardable: bool,
    /// 7 or 15 bits, as `wide_picture_id` says.
    pub picture_id: Option<u16>,
    pub wide_picture_id: bool,
    /// Counts the frames of temporal layer 0.
    pub tl0_picture_index: Option<u8>,
    /// 0 to 3.
    pub temporal_layer: Option<u8>,
    /// This frame depends on layer 0 only: a receiver may go up to its layer here.
    pub layer_sync: bool,
    /// Counts keyframes in time, 0 to 31.
    pub key_index: Option<u8>,
    /// Bytes before the VP8 payload, 1 to 6.
    pub len: usize,
}

impl Descriptor {
    /// Reads the descriptor of a payload without its padding.
    ///
    /// # Errors
    /// [`Reason::CodecMalformed`] where it reaches beyond the payload or nothing follows it.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Descriptor, Reason> {
        Self::read(payload).ok_or(Reason::CodecMalformed)
    }

    #[inline]
    fn read(payload: &[u8]) -> Option<Descriptor> {
        let first = *payload.first()?;
        let mut len = 1;
        let mut flags = 0;
        if first & 0x80 != 0 {
            flags = *payload.get(1)?;
            len = 2;
        }
        let mut picture_id = None;
        let mut wide_picture_id = false;
        if flags & 0x80 != 0 {
            let high = *payload.get(len)?;
            len += 1;
            wide_picture_id = high & 0x80 != 0;
            let mut id = u16::from(high & 0x7F);
            if wide_picture_id {
                id = id << 8 | u16::from(*payload.get(len)?);
                len += 1;
            }
            picture_id = Some(id);
        }
        let mut tl0_picture_index = None;
        if flags & 0x40 != 0 {
            tl0_picture_index = Some(*payload.get(len)?);
            len += 1;
        }
        let mut layers = 0;
        if flags & 0x30 != 0 {
            layers = *payload.get(len)?;
            len += 1;
        }
        let has_layer = flags & 0x20 != 0;
        let start_of_frame = first & 0x17 == 0x10;
        let frame = *payload.get(len)?;
        Some(Descriptor {
            start_of_frame,
            keyframe: start_of_frame && frame & 0x01 == 0,
            discardable: first & 0x20 != 0,
            picture_id,
            wide_picture_id,
            tl0_picture_index,
            temporal_layer: has_layer.then_some(layers >> 6),
            layer_sync: has_layer && layers & 0x20 != 0,
            key_index: (flags & 0x10 != 0).then_some(layers & 0x1F),
            len,
        })
    }
}

/// Width and height of the keyframe that this payload starts, in pixels (RFC 6386 §9.1); `None` where it starts
/// no keyframe or is too short.
#[must_use]
pub fn keyframe_size(payload: &[u8]) -> Option<(u16, u16)> {
    let descriptor = Descriptor::read(payload)?;
    if !descriptor.keyframe {
        return None;
    }
    // Three bytes of frame tag, the start code, then 14 bits for each side with 2 bits of scaling above.
    let &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1] = payload.get(descriptor.len..)?.first_chunk()? else {
        return None;
    };
    Some((u16::from_le_bytes([w0, w1]) & 0x3FFF, u16::from_le_bytes([h0, h1]) & 0x3FFF))
}

/// Replaces picture id and TL0PICIDX in a payload that has this descriptor. Widths are kept, so a 7-bit picture id
/// takes the low 7 bits; a field that the descriptor lacks is not added.
#[inline]
pub fn rewrite(payload: &mut [u8], descriptor: &Descriptor, picture_id: u16, tl0_picture_index: Option<u8>) {
    let mut at = 2;
    if descriptor.picture_id.is_some() {
        let [high, low] = picture_id.to_be_bytes();
        match (payload.get_mut(at..), descriptor.wide_picture_id) {
            (Some([first, second, ..]), true) => (*first, *second) = (0x80 | high, low),
            (Some([first, ..]), false) => *first = low & 0x7F,
            _ => return,
        }
        at += 1 + usize::from(descriptor.wide_picture_id);
    }
    if let (Some(_), Some(index)) = (descriptor.tl0_picture_index, tl0_picture_index)
        && let Some(byte) = payload.get_mut(at)
    {
        *byte = index;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Descriptor bytes followed by a frame tag.
    fn parse(descriptor: &[u8], frame: u8) -> Descriptor {
        let payload = [descriptor, &[frame]].concat();
        let parsed = Descriptor::parse(&payload).expect("well-formed");
        assert_eq!(parsed.len, descriptor.len());
        parsed
    }

    #[test]
    fn the_shortest_descriptor_has_no_picture_id() {
        let first = parse(&[0x10], 0x00);
        assert!(first.start_of_frame && first.keyframe && !first.discardable);
        assert_eq!((first.picture_id, first.temporal_layer, first.key_index), (None, None, None));
        assert!(!parse(&[0x10], 0x01).keyframe, "the P bit of an inter frame is set");
        assert!(!parse(&[0x00], 0x00).keyframe, "a later packet does not tell");
        assert!(!parse(&[0x12], 0x00).start_of_frame, "the start of partition 2");
        assert!(parse(&[0x20], 0x00).discardable);
    }

    #[test]
    fn picture_ids_of_both_widths() {
        let narrow = parse(&[0x90, 0x80, 0x7F], 0);
        assert_eq!((narrow.picture_id, narrow.wide_picture_id), (Some(0x7F), false));
        let wide = parse(&[0x90, 0x80, 0x80, 0x05], 0);
        assert_eq!((wide.picture_id, wide.wide_picture_id), (Some(5), true));
        assert_eq!(parse(&[0x90, 0x80, 0xFF, 0xFF], 0).picture_id, Some(0x7FFF));
    }

    #[test]
    fn layers_with_every_combination_of_flags() {
        let all = parse(&[0x90, 0xF0, 0x92, 0x34, 0x56, 0xB1], 0);
        assert_eq!((all.picture_id, all.tl0_picture_index), (Some(0x1234), Some(0x56)));
        assert_eq!((all.temporal_layer, all.layer_sync, all.key_index), (Some(2), true, Some(0x11)));
        let key_only = parse(&[0x90, 0x10, 0xFF], 0);
        assert_eq!(
            (key_only.temporal_layer, key_only.layer_sync, key_only.key_index),
            (None, false, Some(0x1F))
        );
        let layer_only = parse(&[0x90, 0x20, 0x40], 0);
        assert_eq!((layer_only.temporal_layer, layer_only.key_index), (Some(1), None));
        assert_eq!(parse(&[0x90, 0x40, 9], 0).tl0_picture_index, Some(9));
        assert_eq!(parse(&[0x90, 0x00], 0).picture_id, None);
    }

    #[test]
    fn every_truncation_is_malformed() {
        let whole = [0x90, 0xF0, 0x92, 0x34, 0x56, 0xB1, 0x00];
        for len in 0..whole.len() {
            assert_eq!(Descriptor::parse(&whole[..len]), Err(Reason::CodecMalformed), "{len}");
        }
        assert!(Descriptor::parse(&whole).is_ok());
    }

    #[test]
    fn the_size_of_a_keyframe_without_its_scaling_bits() {
        let frame = [0x10, 0x50, 0x01, 0x00, 0x9D, 0x01, 0x2A, 0x80, 0x42, 0x68, 0x81];
        assert_eq!(keyframe_size(&frame), Some((640, 360)));
        assert_eq!(keyframe_size(&frame[..10]), None);
        let mut inter = frame;
        inter[1] |= 1;
        assert_eq!(keyframe_size(&inter), None);
        let mut no_start_code = frame;
        no_start_code[4] = 0;
        assert_eq!(keyframe_size(&no_start_code), None);
    }

    #[test]
    fn rewriting_keeps_widths_and_all_other_bytes() {
        let mut payload = [0x90, 0xF0, 0x92, 0x34, 0x56, 0xB1, 0x77];
        let descriptor = Descriptor::parse(&payload).expect("well-formed");
        rewrite(&mut payload, &descriptor, 0x7FFF, Some(0xAA));
        assert_eq!(payload, [0x90, 0xF0, 0xFF, 0xFF, 0xAA, 0xB1, 0x77]);
        rewrite(&mut payload, &descriptor, 3, None);
        assert_eq!(payload, [0x90, 0xF0, 0x80, 0x03, 0xAA, 0xB1, 0x77]);

        let mut narrow = [0x90, 0xC0, 0x12, 0x34, 0x56];
        let descriptor = Descriptor::parse(&narrow).expect("well-formed");
        rewrite(&mut narrow, &descriptor, 0x1FF, Some(1));
        assert_eq!(narrow, [0x90, 0xC0, 0x7F, 0x01, 0x56]);

        let mut bare = [0x10, 0x34, 0x56];
        let descriptor = Descriptor::parse(&bare).expect("well-formed");
        rewrite(&mut bare, &descriptor, 0x1FF, Some(1));
        assert_eq!(bare, [0x10, 0x34, 0x56]);
        rewrite(&mut [], &descriptor, 1, Some(1));
    }

    proptest! {
        #[test]
        fn any_picture_id_reads_back_in_its_width(
            mut payload in prop::collection::vec(any::<u8>(), 0..12),
            picture_id: u16,
            tl0: u8,
        ) {
            if let Ok(descriptor) = Descriptor::parse(&payload) {
                let before = payload.clone();
                rewrite(&mut payload, &descriptor, picture_id, Some(tl0));
                let mask = if descriptor.wide_picture_id { 0x7FFF } else { 0x7F };
                let expected = Descriptor {
                    picture_id: descriptor.picture_id.map(|_| picture_id & mask),
                    tl0_picture_index: descriptor.tl0_picture_index.map(|_| tl0),
                    ..descriptor
                };
                prop_assert_eq!(Descriptor::parse(&payload), Ok(expected));
                prop_assert_eq!(&payload[descriptor.len..], &before[descriptor.len..]);
                prop_assert_eq!(keyframe_size(&payload), keyframe_size(&before));
            }
        }
    }
}
