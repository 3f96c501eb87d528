#![no_main]
#[path = "../../tests/fuzz/sdp.rs"]
mod sdp;
libfuzzer_sys::fuzz_target!(|data: &[u8]| sdp::fuzz_sdp(data));
