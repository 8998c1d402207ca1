//! Coverage-guided fuzzing of the head of a request: `cargo fuzz run head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::protocol::fuzz::fuzz_head(data));
