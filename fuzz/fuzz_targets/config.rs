//! Coverage-guided fuzzing of the text of a configuration: `cargo fuzz run config`.
#![no_main]

#[path = "../entries/config.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::fuzz_config(data));
