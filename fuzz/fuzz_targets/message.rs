//! Coverage-guided fuzzing of a client's message: `cargo fuzz run message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::protocol::message_fuzz::fuzz_message(data));
