#![no_main]
#[path = "../../tests/fuzz/vp8.rs"]
mod vp8;
libfuzzer_sys::fuzz_target!(|data: &[u8]| vp8::fuzz_vp8(data));
