//! The `confman` binary.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: confman_allocator::MiMalloc = confman_allocator::MiMalloc;

fn main() -> ExitCode {
    // Memory that does not grow with the state (I6) must be given back too. Where the environment wants it otherwise, that is so.
    let _ = confman_allocator::give_back_at_once();
    confman_node::cli::main()
}
