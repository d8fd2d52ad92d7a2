//! `confman get`: one value.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use confman_client::wire::{ValueType, VersionToken};
use confman_client::{ErrorKind, RawEntry, ReadMode};

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::{Failure, stdout_failed};
use super::output;
use super::path::EntryArgs;

/// The most that is shown on a terminal; more is for a file.
const TERMINAL_BYTES_MAX: usize = 1 << 20;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// As of now
    Linearizable,
    /// Whatever the node that is asked has
    Eventual,
}

/// Options of every command that reads.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReadArgs {
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    pub(crate) consistency: Consistency,
    /// At least as new as this version token (X-Confman-Version of a write)
    #[arg(long, value_name = "TOKEN", conflicts_with = "consistency")]
    pub(crate) since: Option<VersionToken>,
}

impl ReadArgs {
    pub(crate) fn mode(&self) -> ReadMode {
        match (self.since, self.consistency) {
            (Some(token), _) => ReadMode::ReadYourWrites(token),
            (None, Consistency::Linearizable) => ReadMode::Linearizable,
            (None, Consistency::Eventual) => ReadMode::Eventual,
        }
    }
}

/// Print one value, byte for byte; on a terminal, made harmless
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Write the value to this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Print the bytes as they are, on a terminal too
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: GetArgs) -> Result<ExitCode, Failure> {
    let (namespace, key) = args.entry.split()?;
    let client = args.connect.client()?;
    let mode = args.read.mode();
    if args.out.json {
        let answered = client.get(namespace, key, mode).await?;
        args.connect.note(&answered);
        output::json(&answered.value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answered = client.get_raw(namespace, key, mode).await?;
    args.connect.note(&answered);
    let entry = answered.value;
    match &args.output {
        Some(path) => to_file(entry, path).await?,
        None if std::io::stdout().is_terminal() && !args.raw => to_terminal(entry).await?,
        None => to_stdout(entry).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn to_stdout(mut entry: RawEntry) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    while let Some(chunk) = entry.body.next_chunk().await? {
        out.write_all(&chunk).map_err(|e| stdout_failed(&e))?;
    }
    out.flush().map_err(|e| stdout_failed(&e))
}

/// The file appears when it is whole.
async fn to_file(mut entry: RawEntry, path: &std::path::Path) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut file = std::fs::File::create(&part).map_err(|e| Failure::local("create", &part, &e))?;
    let written = async {
        while let Some(chunk) = entry.body.next_chunk().await? {
            file.write_all(&chunk)
                .map_err(|e| Failure::local("write", &part, &e))?;
        }
        file.sync_all()
            .map_err(|e| Failure::local("write", &part, &e))?;
        std::fs::rename(&part, path).map_err(|e| Failure::local("write", path, &e))
    };
    let result = written.await;
    if result.is_err() {
        // What is left of it is of no use; the error that counts is the first.
        let _ = std::fs::remove_file(&part);
    }
    result
}

async fn to_terminal(entry: RawEntry) -> Result<(), Failure> {
    let for_a_file = |why: String| {
        Failure::new(ErrorKind::Usage, why)
            .with_hint("write it to a file with --output FILE, or print it with --raw")
    };
    if entry.value_type == Some(ValueType::Binary) {
        let bytes = entry
            .body
            .announced_bytes()
            .map_or_else(String::new, |n| format!(" of {}", output::bytes(n)));
        return Err(for_a_file(format!(
            "this is a binary value{bytes}, and stdout is a terminal"
        )));
    }
    if let Some(bytes) = entry
        .body
        .announced_bytes()
        .filter(|&n| n > TERMINAL_BYTES_MAX as u64)
    {
        return Err(for_a_file(format!(
            "this value has {}, and stdout is a terminal",
            output::bytes(bytes)
        )));
    }
    let bytes = entry.body.bytes(TERMINAL_BYTES_MAX).await?;
    let text = String::from_utf8_lossy(&bytes);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write!(std::io::stdout().lock(), "{}{end}", escape::lines(&text)).map_err(|e| stdout_failed(&e))
}
