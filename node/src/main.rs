//! The `confman` binary.

use std::process::ExitCode;

// Memory that does not grow with the state (I6) must be given back too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    confman_node::cli::main()
}
