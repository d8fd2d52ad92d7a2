//! The `drtool` command line: which commands there are, in which group of the help, and how one is run.
//!
//! A room adds its command to [`Command`], to [`GROUPS`] and to [`run`]; a test holds that none is forgotten.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use confman_cli::failure::{self, Failure};
use confman_cli::output;
use confman_client::ErrorKind;

use crate::codes;
use crate::context::Global;
use crate::{doctor, drill, explain, live, pages, recover, restore, runbook, stopped, store};

/// Recover, restore, inspect and change a Confman cluster
#[derive(Debug, Parser)]
#[command(
    name = "drtool",
    version = confman_cli::VERSION,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one in a process.
enum Command {
    Status(live::status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Member(live::member::MemberArgs),
    Snapshot(store::snapshot::SnapshotArgs),
    Retention(store::retention::RetentionArgs),
    Get(store::get::GetArgs),
    Export(store::export::ExportArgs),
    Store(store::probe::StoreCommandArgs),
    Restore(restore::RestoreArgs),
    Drill(drill::DrillArgs),
    Recover(recover::RecoverArgs),
    Inspect(stopped::inspect::InspectArgs),
    Verify(stopped::verify::VerifyArgs),
    Diff(stopped::diff::DiffArgs),
    Runbook(runbook::RunbookArgs),
    Explain(explain::ExplainArgs),
    Completions(pages::CompletionsArgs),
    Man(pages::ManArgs),
}

/// The commands as the help shows them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Live cluster", &["status", "doctor", "member"]),
    (
        "Store",
        &[
            "snapshot",
            "retention",
            "get",
            "export",
            "store",
            "restore",
            "drill",
        ],
    ),
    ("Stopped node", &["inspect", "verify", "diff"]),
    ("Quorum loss", &["recover"]),
    ("Help", &["runbook", "explain", "completions", "man"]),
];

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    // Of the variable FAILPOINTS; only in programs that were built for tests.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let matches = command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    stopped::keep_quiet_on_caught_panics();
    // Two providers in one binary panic: this is the only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return codes::usage("BUG", format!("start the runtime: {error}")).report(),
    };
    let Cli { global, command } = cli;
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(command, &global))));
    runtime.shutdown_background();
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => report(failure, &global),
        // The panic has said what and where.
        Err(_) => ExitCode::from(ErrorKind::Bug.exit_code()),
    }
}

async fn run(command: Command, global: &Global) -> Result<ExitCode, Failure> {
    match command {
        Command::Status(args) => live::status::run(&args, global).await,
        Command::Doctor(args) => doctor::run(&args, global).await,
        Command::Member(args) => live::member::run(args, global).await,
        Command::Snapshot(args) => store::snapshot::run(args, global).await,
        Command::Retention(args) => store::retention::run(args, global).await,
        Command::Get(args) => store::get::run(args, global).await,
        Command::Export(args) => store::export::run(args, global).await,
        Command::Store(args) => store::probe::run(args, global).await,
        Command::Restore(args) => restore::run(args, global).await,
        Command::Drill(args) => drill::run(&args, global).await,
        Command::Recover(args) => recover::run(args, global).await,
        Command::Inspect(args) => stopped::inspect::run(&args, global),
        Command::Verify(args) => stopped::verify::run(&args, global),
        Command::Diff(args) => stopped::diff::run(&args, global),
        Command::Runbook(args) => runbook::run(&args, global).await,
        Command::Explain(args) => explain::run(&args, global),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

/// A failure on stderr for people, under a name that `drtool explain` knows, and as the one document on stdout for scripts.
fn report(failure: Failure, global: &Global) -> ExitCode {
    let failure = codes::named(failure);
    let code = failure.report();
    if let Failure::Told {
        kind,
        message,
        hint,
        code,
    } = &failure
        && global.json
    {
        let document = serde_json::json!({ "error": {
            "code": code, "exitCode": kind.exit_code(), "message": message, "hint": hint,
        }});
        // Whoever does not read stdout has read stderr.
        let _ = output::json(&document);
    }
    code
}

/// The command with its help in groups. The list that clap would print is hidden: it knows no groups.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let groups = groups(&command);
    command
        .help_template(format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}{{all-args}}\n\n{}",
            failure::exit_codes_help()
        ))
        .mut_subcommands(|sub| sub.hide(true))
}

fn groups(command: &clap::Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        if names.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{title}:");
        for name in *names {
            let about = command
                .find_subcommand(name)
                .and_then(|sub| sub.get_about())
                .map(ToString::to_string)
                .unwrap_or_default();
            let _ = writeln!(text, "  {name:<13} {about}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_put_together_rightly() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group_of_the_help() {
        let command = Cli::command();
        let mut there: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        there.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(there, grouped);
    }

    /// The pages as they are printed: a change of an option is a change that a reviewer sees.
    #[test]
    fn help_pages() {
        fn pages(path: &str, command: &mut clap::Command, out: &mut Vec<(String, String)>) {
            let mut plain = command
                .clone()
                .term_width(100)
                .mut_args(|arg| arg.hide_env_values(true));
            out.push((path.replace(' ', "-"), plain.render_help().to_string()));
            for sub in command
                .get_subcommands_mut()
                .filter(|sub| sub.get_name() != "help")
            {
                pages(&format!("{path} {}", sub.get_name().to_owned()), sub, out);
            }
        }
        let mut command = command();
        command.build();
        let mut all = Vec::new();
        pages("drtool", &mut command, &mut all);
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
