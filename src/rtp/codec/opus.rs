//! How long an Opus packet lasts (RFC 6716 §3).

/// Opus packets never last longer than 120 ms (RFC 6716 §3.2.5).
const MAX_TICKS: u32 = 5760;

/// Duration of the packet in 48 kHz samples, the RTP clock of Opus: 120 (2.5 ms) to 5760 (120 ms). 0 where the payload
/// is no Opus packet. Only the first two bytes are read, which stay clear under end-to-end encryption.
///
/// ```text
/// | config (5) | s | c (2) |   then, where c is 3:   | v | p | M (6) |
/// ```
#[must_use]
pub fn frame_ticks(payload: &[u8]) -> u32 {
    let Some(&toc) = payload.first() else { return 0 };
    let config = u32::from(toc >> 3);
    let frame = match config {
        0..12 => [480, 960, 1920, 2880][config as usize & 3], // SILK: 10, 20, 40, 60 ms
        12..16 => 480 << (config & 1),                        // hybrid: 10, 20 ms
        _ => 120 << (config & 3),                             // CELT: 2.5, 5, 10, 20 ms
    };
    let frames = match (toc & 3, payload.get(1)) {
        (0, _) => 1,
        (1 | 2, _) => 2,
        (_, Some(&count)) => u32::from(count & 0x3F),
        (_, None) => 0,
    };
    let ticks = frame * frames;
    if ticks > MAX_TICKS { 0 } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_of_every_configuration() {
        #[rustfmt::skip]
        let milliseconds_times_ten = [
            100, 200, 400, 600, 100, 200, 400, 600, 100, 200, 400, 600, 100, 200, 100, 200,
            25, 50, 100, 200, 25, 50, 100, 200, 25, 50, 100, 200, 25, 50, 100, 200,
        ];
        for (config, tenths) in milliseconds_times_ten.into_iter().enumerate() {
            for stereo in [0, 4] {
                let toc = (config as u8) << 3 | stereo;
                assert_eq!(frame_ticks(&[toc]), tenths * 48 / 10, "configuration {config}");
                assert_eq!(frame_ticks(&[toc | 1, 9]), 2 * tenths * 48 / 10);
                assert_eq!(frame_ticks(&[toc | 2, 9]), 2 * tenths * 48 / 10);
            }
        }
    }

    #[test]
    fn counted_frames_up_to_120_ms() {
        const CELT_20_MS: u8 = 31 << 3;
        const CELT_2_5_MS: u8 = 28 << 3;
        assert_eq!(frame_ticks(&[CELT_20_MS | 3, 0xC0 | 6]), 5760);
        assert_eq!(frame_ticks(&[CELT_20_MS | 3, 7]), 0, "140 ms");
        assert_eq!(frame_ticks(&[CELT_2_5_MS | 3, 48]), 5760);
        assert_eq!(frame_ticks(&[CELT_2_5_MS | 3, 49]), 0);
        assert_eq!(frame_ticks(&[CELT_20_MS | 3, 0]), 0, "no frames");
        assert_eq!(frame_ticks(&[CELT_20_MS | 3]), 0, "no count");
        assert_eq!(frame_ticks(&[]), 0);
    }
}
