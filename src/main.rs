//! The program: arguments → verb. Everything else is in the library.

use std::process::ExitCode;

/// Process-wide allocator: small and steady under many short-lived messages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pipeward::cli::run(std::env::args_os())
}
