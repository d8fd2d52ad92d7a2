//! The `confman` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Memory that does not grow with the state (I6) must be given back too.
    confman_allocator::give_back_at_once();
    confman_node::cli::main()
}
