//! `confman completions`: what a shell needs to complete commands.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::{Failure, stdout_failed};

/// Print a completion script
#[derive(Debug, Args)]
#[command(
    after_help = "For bash: confman completions bash > ~/.local/share/bash-completion/completions/confman"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "confman",
        &mut script,
    );
    std::io::stdout()
        .lock()
        .write_all(&script)
        .map_err(|e| stdout_failed(&e))?;
    Ok(ExitCode::SUCCESS)
}
