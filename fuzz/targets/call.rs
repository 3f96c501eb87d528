#![no_main]
#[path = "../../tests/fuzz/call.rs"]
mod call;
#[path = "../../tests/support/mod.rs"]
mod support;
libfuzzer_sys::fuzz_target!(|data: &[u8]| call::fuzz_call(data));

mod allocation {
    pub fn during(work: impl FnOnce()) -> u64 {
        work();
        0 // nobody counts here
    }
}
