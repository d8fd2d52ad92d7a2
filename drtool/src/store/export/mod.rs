//! `drtool export`: a snapshot as one JSON document, or as the tree that `confman import` takes.
//!
//! - `json`: configs, namespaces, audit events, index, timestamp;
//! - `dir`: one file a value.
//!
//! Promises: a document is only printed when every snapshot in it was read to its end and proven; a directory that is
//! not proven in the end is said so, with exit code 5. Memory is a few chunks and one value.
//!
//! Does not: make one moment of several groups. Each group's snapshot stands at its own position, and each is named.

mod dir;
mod json;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use confman_cli::failure::Failure;
use confman_snapshot::{RecordStream, SnapshotReader};
use confman_store::names;

use super::pick::{GroupArgs, Wanted};
use super::reader::StoreReader;
use super::records::Records;
use super::{StoreArgs, errors};
use crate::codes;
use crate::context::Global;

/// Chunks that are read ahead.
const AHEAD: usize = 2;

/// Write a snapshot as one JSON document, or as the tree that `confman import` takes
#[derive(Debug, Args)]
#[command(after_help = "\
A tree is imported again with `confman import DIR/NAME` for each of its first directories, or, written with --from, with \
`confman import DIR --into NAMESPACE`. It keeps the bytes of values, not their types, versions and history; the JSON document keeps all \
of these.")]
pub struct ExportArgs {
    /// The snapshot: its id or the beginning of it, its index, or `latest`: the newest of every group, or of --group
    #[arg(long, value_name = "ID")]
    snapshot: Wanted,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to: a file for json [default: stdout], a new or empty directory for dir
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Only this namespace and those below it; in a directory its content comes directly
    #[arg(long, value_name = "NAMESPACE")]
    from: Option<String>,
    /// Write over a file, or into a directory that holds something
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One document: configs, namespaces, audit events, index, timestamp
    Json,
    /// A directory tree: namespaces are directories, keys are files
    Dir,
}

/// Runs the command.
///
/// # Errors
/// It did not do all it was asked.
pub async fn run(args: ExportArgs, global: &Global) -> Result<ExitCode, Failure> {
    if let Some(from) = &args.from {
        names::check_namespace(from)
            .map_err(|error| codes::usage("ARGUMENT", format!("namespace {from:?}: {error}")))?;
    }
    if args.format == Format::Dir && args.to.is_none() {
        return Err(
            codes::usage("ARGUMENT", "a directory is written to --to DIR")
                .with_hint("name a new directory with --to"),
        );
    }
    let store = args.store.reader(global).await?;
    let readers = open(&store, &args).await?;
    match args.format {
        Format::Json => json::run(&args, &store, readers, global).await,
        Format::Dir => dir::run(&args, &store, readers, global).await,
    }
}

/// The snapshots to write.
async fn open(store: &StoreReader, args: &ExportArgs) -> Result<Vec<SnapshotReader>, Failure> {
    let group = args.group.group.as_ref();
    let mut picked = Vec::new();
    if args.snapshot == Wanted::Latest && group.is_none() {
        for group in store.groups(None).await?.into_keys() {
            picked.push(store.pick(&Wanted::Latest, Some(&group)).await?);
        }
    }
    if picked.is_empty() {
        picked.push(store.pick(&args.snapshot, group).await?);
    }
    let mut readers = Vec::new();
    for one in picked {
        let reader = store.open(&one.group, &one.listed.id).await;
        readers.push(reader.map_err(|error| errors::snapshot(&error))?);
    }
    Ok(readers)
}

/// One snapshot being read: all of it in order, and single records beside, for values in parts.
struct Pass {
    stream: RecordStream,
    records: Records,
}

impl Pass {
    fn new(reader: SnapshotReader) -> Self {
        Self {
            stream: reader.records(AHEAD),
            records: Records::new(reader),
        }
    }
}

/// Whether a namespace is the one that was asked for, or below it.
fn is_within(namespace: &str, from: Option<&str>) -> bool {
    let Some(from) = from else { return true };
    namespace
        .strip_prefix(from)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_only_begins_alike_is_not_within() {
        assert!(is_within("a/b", None) && is_within("a/b", Some("a/b")));
        assert!(is_within("a/b/c", Some("a/b")) && is_within("a/b", Some("a")));
        assert!(!is_within("a/bc", Some("a/b")) && !is_within("a", Some("a/b")));
    }
}
