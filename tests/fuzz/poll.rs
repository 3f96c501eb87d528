//! The body of a long poll request: taking it apart never panics, and every message is one line of it.

use motet::signal::message::SizeLimits;
use motet::signal::poll::{Batch, batch};

pub fn fuzz_poll(data: &[u8]) {
    let sizes = SizeLimits { frame_bytes: 512 << 10, message_bytes: 64 << 10, depth: 16 };
    if let Ok(Batch::Later(_, messages)) = batch(data, &sizes) {
        let bytes: usize = messages.iter().map(|message| message.len() + 1).sum();
        assert!(bytes <= data.len(), "the first line is not among them");
        assert!(messages.iter().all(|message| !message.contains('\n') && !message.trim_ascii().is_empty()));
    }
}
