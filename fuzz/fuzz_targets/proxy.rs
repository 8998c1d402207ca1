//! Coverage-guided fuzzing of the PROXY header: `cargo fuzz run proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::protocol::fuzz::fuzz_proxy(data));
