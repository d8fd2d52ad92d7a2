//! The `drtool` command line: which commands there are, in which group of the help, and how one is run.
//!
//! A room adds its command to [`Command`], to [`GROUPS`] and to [`run`]; a test holds that none is forgotten.

use std::any::Any;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use confman_cli::failure::{self, Failure};
use confman_cli::output;
use confman_client::ErrorKind;

use crate::codes;
use crate::context::Global;
use crate::{
    aside, doctor, drill, explain, live, pages, recover, restore, runbook, stopped, store,
};

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
    SetAside(aside::SetAsideArgs),
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
    ("Stopped node", &["inspect", "verify", "diff", "set-aside"]),
    ("Quorum loss", &["recover"]),
    ("Help", &["runbook", "explain", "completions", "man"]),
];

/// The option that names a dev cluster.
const DEV: &str = "dev";

/// The commands whose answer may be no.
const CHECKS: &str = "status, doctor, diff, store probe, recover verify";

/// What an exit code means where not only a cluster refuses.
fn meaning(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => {
            "refused: by drtool, since a rule stands against it, or by the cluster or the store"
        }
        ErrorKind::Unreachable => {
            "no node could answer, a group takes no writes, or no answer of the store"
        }
        other => other.meaning(),
    }
}

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    // Of the variable FAILPOINTS; only in programs that were built for tests.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let parsed = command().try_get_matches();
    let cli = match parsed.and_then(|matches| read(&matches)) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, std::env::args_os().skip(1)),
    };
    stopped::keep_quiet_on_caught_panics();
    // Two providers in one binary panic: this is the only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = codes::bug(format!("start the runtime: {error}"));
            return report(failure, cli.global.json);
        }
    };
    let Cli { global, command } = cli;
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(command, &global))));
    runtime.shutdown_background();
    match ended.unwrap_or_else(|panic| Err(panicked(&*panic))) {
        Ok(code) => code,
        Err(failure) => report(failure, global.json),
    }
}

/// The command line as a value.
fn read(matches: &clap::ArgMatches) -> Result<Cli, clap::Error> {
    let mut cli = Cli::from_arg_matches(matches)?;
    let mut here = matches;
    while let Some((_, below)) = here.subcommand() {
        here = below;
    }
    cli.global.dev = here.try_get_one::<PathBuf>(DEV).ok().flatten().cloned();
    Ok(cli)
}

/// What a panic was about. Where it was the panic itself has said on stderr.
fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    codes::bug(format!(
        "drtool panicked: {}",
        words.unwrap_or("without words")
    ))
}

/// What clap says of a command line: help and versions where they were asked for, anything else under a stable name.
fn not_understood(error: &clap::Error, args: impl Iterator<Item = OsString>) -> ExitCode {
    let text = error.render().to_string();
    let Some(message) = text.strip_prefix("error: ").filter(|_| error.use_stderr()) else {
        // A page of help; clap knows where it goes and how that ends.
        error.exit();
    };
    eprintln!("error[USAGE]: {}", message.trim_end());
    let mut options = args.take_while(|arg| arg != "--");
    if options.any(|arg| arg == "--json")
        && let Some(document) = codes::named(codes::usage("USAGE", one_line(message))).document()
    {
        // Whoever does not read stdout has read stderr.
        let _ = output::json(&document);
    }
    ExitCode::from(ErrorKind::Usage.exit_code())
}

/// The complaint without the usage and the tips that follow it.
fn one_line(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
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
        Command::SetAside(args) => aside::run(&args, global),
        Command::Runbook(args) => runbook::run(&args, global).await,
        Command::Explain(args) => explain::run(&args, global),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

/// A failure on stderr for people, under a name that `drtool explain` knows, and as the one document on stdout for scripts.
fn report(failure: Failure, json: bool) -> ExitCode {
    codes::named(failure).report_as(json)
}

/// The command as it is declared, with `--dev` wherever a store can be named.
pub(crate) fn declared() -> clap::Command {
    with_dev(Cli::command())
}

fn with_dev(command: clap::Command) -> clap::Command {
    let has = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
    let command = match (has("store"), has(DEV)) {
        (true, true) => command.mut_arg(DEV, |arg| {
            arg.help("Endpoints, key and store of the `confman dev` cluster in this directory [default: ./confman-dev if it is there and no CONFMAN_ variable says otherwise]")
        }),
        (true, false) => {
            let help = match has("endpoints") {
                true => "The store of the `confman dev` cluster in this directory, and its nodes where --endpoints names no others",
                false => "The store of the `confman dev` cluster in this directory",
            };
            command.arg(
                clap::Arg::new(DEV)
                    .long(DEV)
                    .value_name("DIR")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help_heading("Store")
                    .help(help),
            )
        }
        (false, _) => command,
    };
    command.mut_subcommands(with_dev)
}

/// The command with its help in groups. The list that clap would print is hidden: it knows no groups.
pub(crate) fn command() -> clap::Command {
    let command = declared();
    let groups = groups(&command);
    command
        .help_template(format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}{{all-args}}\n\n{}",
            failure::exit_codes_help(CHECKS, meaning)
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
        declared().debug_assert();
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
        let all = confman_cli::transcript::help_pages(&mut command());
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

    #[test]
    fn a_dev_cluster_is_named_for_the_nodes_and_for_the_store() {
        let lines: [&[&str]; 4] = [
            &["drill"],
            &["doctor"],
            &["snapshot", "list"],
            &["recover", "collect", "some-directory"],
        ];
        for line in lines {
            let args = [&["drtool"], line, &["--dev", "elsewhere"]].concat();
            let cli = read(&command().try_get_matches_from(&args).unwrap()).unwrap();
            assert_eq!(cli.global.dev, Some("elsewhere".into()), "{args:?}");
        }
        let plain = command().try_get_matches_from(["drtool", "drill"]).unwrap();
        assert_eq!(read(&plain).unwrap().global.dev, None);
    }

    #[test]
    fn a_panic_is_a_bug_with_its_own_words() {
        let panic = catch_unwind(|| panic!("at {}", 7)).unwrap_err();
        let failure = panicked(&*panic);
        assert_eq!(failure.to_string(), "drtool panicked: at 7");
        assert_eq!(failure.kind(), Some(ErrorKind::Bug));
    }
}
