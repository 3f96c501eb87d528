#![no_main]
#[path = "../../tests/fuzz/srtp.rs"]
mod srtp;
libfuzzer_sys::fuzz_target!(|data: &[u8]| srtp::fuzz_srtp(data));
