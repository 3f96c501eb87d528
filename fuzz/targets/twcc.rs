#![no_main]
#[path = "../../tests/fuzz/twcc.rs"]
mod twcc;
libfuzzer_sys::fuzz_target!(|data: &[u8]| twcc::fuzz_twcc(data));
