#![no_main]
#[path = "../../tests/fuzz/stun.rs"]
mod stun;
libfuzzer_sys::fuzz_target!(|data: &[u8]| stun::fuzz_stun(data));
