//! Coverage-guided fuzzing of the frame reader: `cargo fuzz run frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::protocol::fuzz::fuzz_frame(data));
