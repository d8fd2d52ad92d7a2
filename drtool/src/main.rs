//! The `drtool` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    confman_drtool::main()
}
