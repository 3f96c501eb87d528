#![no_main]
#[allow(dead_code)] // only what the other uses of it
#[path = "../../tests/fuzz/stun.rs"]
mod stun;
#[path = "../../tests/fuzz/transport.rs"]
mod transport;
libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::fuzz_transport(data));
