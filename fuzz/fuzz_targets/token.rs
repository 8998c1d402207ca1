//! Coverage-guided fuzzing of a token and its claims: `cargo fuzz run token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeward::auth::fuzz_token(data));
