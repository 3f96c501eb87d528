#![no_main]
#[path = "../../tests/fuzz/poll.rs"]
mod poll;
libfuzzer_sys::fuzz_target!(|data: &[u8]| poll::fuzz_poll(data));
