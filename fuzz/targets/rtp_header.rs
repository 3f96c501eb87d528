#![no_main]
#[path = "../../tests/fuzz/rtp_header.rs"]
mod rtp_header;
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtp_header::fuzz_rtp_header(data));
