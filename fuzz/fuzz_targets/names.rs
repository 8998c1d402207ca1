//! Coverage-guided fuzzing of names, patterns and templates: `cargo fuzz run names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::protocol::message_fuzz::fuzz_names(data));
