#![no_main]
#[path = "../../tests/fuzz/session.rs"]
mod session;
libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzz_session(data));
