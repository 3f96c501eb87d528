//! Whatever a client sends: decoding never panics, and what it accepts keeps the limits.

use motet::signal::message::{SizeLimits, decode};

pub fn fuzz_message(data: &[u8]) {
    let limits = SizeLimits { frame_bytes: 512 << 10, message_bytes: 64 << 10, depth: 16 };
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(incoming) = decode(text, &limits) {
        assert!(text.len() <= limits.frame_bytes);
        assert!(incoming.s.is_none_or(|s| s > 0));
        if let Ok(Some(message)) = incoming.body {
            let again = serde_json::to_string(&message).expect("what was read can be written");
            assert!(again.contains(message.kind().as_str()));
        }
    }
}
