//! The `confman` command: one file a command.
//!
//! Promises:
//! - a command that has `--json` prints one JSON document on stdout and everything else on stderr; where it fails, that document is
//!   what went wrong;
//! - exit codes say what kind of remedy is needed, in one table ([`confman_client::ErrorKind`]);
//! - names and values from the cluster cannot steer a terminal ([`escape`]);
//! - a command that changes something says so when it does not know whether it happened.
//!
//! Does not: know a node's inside. Everything but `serve`, `dev`, `config`, `key` and `cert` works over HTTP, through
//! [`confman_client`].
//!
//! Where to go next: [`connect`] finds the cluster and the key, [`failure`] ends a command, [`import`], [`export`]
//! and [`bench`] are rooms of their own.

mod audit;
mod bench;
pub(crate) mod cert;
mod completions;
pub mod config_cmd;
mod content;
mod delete;
mod export;
mod get;
mod health;
mod import;
mod list;
mod namespace;
mod pages;
mod path;
mod put;
mod snapshot;
mod status;

pub(crate) use confman_cli::output;
use confman_cli::{connect, escape, failure};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use confman_client::ErrorKind;
use failure::Failure;

/// Replicated configuration that survives anything
#[derive(Debug, Parser)]
#[command(name = "confman", version = confman_cli::VERSION, max_term_width = 110, after_help = failure::exit_codes_help("status, health", ErrorKind::meaning))]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one in a process.
enum Command {
    /// Run one node, configured by its environment (`confman config` shows it)
    Serve(crate::serve::ServeArgs),
    #[command(flatten)]
    Other(Other),
}

/// Everything that is not a node.
#[derive(Debug, Subcommand)]
enum Other {
    /// Run a whole cluster on this machine, to try things out
    Dev(crate::dev::DevArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Delete(delete::DeleteArgs),
    List(list::ListArgs),
    Namespace(namespace::NamespaceArgs),
    Audit(audit::AuditArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Status(status::StatusArgs),
    Snapshot(snapshot::SnapshotArgs),
    Health(health::HealthArgs),
    Bench(bench::BenchArgs),
    Key(crate::auth::KeyArgs),
    Cert(cert::CertArgs),
    Config(config_cmd::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = crate::killpoints::arm();
    let matches = Cli::command().get_matches();
    let json = asks_for_json(&matches);
    let parsed = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let command = match parsed.command {
        // A node has a runtime of its own, and takes time to stop it.
        Command::Serve(args) => return crate::serve::run(&args),
        Command::Other(command) => command,
    };
    // Two providers in one binary panic: this is the only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::usage(format!("start the runtime: {error}")).report(),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(command))));
    // A blocking read of stdin or of a slow disk may still be going on: nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => failure.report_as(json),
        // The panic has said what and where.
        Err(_) => ExitCode::from(ErrorKind::Bug.exit_code()),
    }
}

/// Whether the command at the end of the line was given `--json`.
fn asks_for_json(matches: &ArgMatches) -> bool {
    let mut last = matches;
    while let Some((_, within)) = last.subcommand() {
        last = within;
    }
    matches!(last.try_get_one::<bool>("json"), Ok(Some(true)))
}

async fn run(command: Other) -> Result<ExitCode, Failure> {
    match command {
        Other::Dev(args) => Ok(crate::dev::run(args).await),
        Other::Get(args) => get::run(args).await,
        Other::Put(args) => put::run(args).await,
        Other::Delete(args) => delete::run(args).await,
        Other::List(args) => list::run(args).await,
        Other::Namespace(args) => namespace::run(args).await,
        Other::Audit(args) => audit::run(args).await,
        Other::Import(args) => import::run(args).await,
        Other::Export(args) => export::run(args).await,
        Other::Status(args) => status::run(args).await,
        Other::Snapshot(args) => snapshot::run(args).await,
        Other::Health(args) => health::run(args).await,
        Other::Bench(args) => bench::run(args).await,
        Other::Key(args) => crate::auth::run(args),
        Other::Cert(args) => cert::run(args),
        Other::Config(args) => Ok(config_cmd::run(args)),
        Other::Completions(args) => completions::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_put_together_rightly() {
        Cli::command().debug_assert();
    }

    /// The pages as they are printed: a change of an option is a change that a reviewer sees.
    #[test]
    fn help_pages() {
        let all = confman_cli::transcript::help_pages(&mut Cli::command());
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("help");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            for (name, page) in all {
                insta::assert_snapshot!(name, page);
            }
        });
    }
}
