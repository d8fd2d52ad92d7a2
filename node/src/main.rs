//! The `confman` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    confman_node::cli::main()
}
