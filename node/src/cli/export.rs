//! `confman export`: namespaces back into a directory tree, byte for byte.
//!
//! Promises:
//! - every value is compared with its hash before its file gets its name; damage is reported and ends with exit code 5;
//! - nothing is written outside the directory, whatever the names are ([`confman_cli::tree`]);
//! - a directory that holds something is left alone without `--overwrite`; with it, files that are right already are
//!   not fetched again, so that an export that was interrupted goes on.
//!
//! Does not: delete files that have no key; make one snapshot of the whole (a key that changes meanwhile is written as
//! it is when its turn comes).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use confman_cli::tree::{Place, Tree};
use confman_client::wire::EntryHead;
use confman_client::{Client, ClientError, ErrorKind, RawEntry, ReadMode};
use confman_snapshot::ValueHasher;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connect::{ConnectArgs, OutputArgs};
use super::content::of_reader;
use super::failure::Failure;
use super::pages::{Entries, Namespaces};
use super::path::check_namespace;
use super::{escape, output};

/// A value whose transfer broke off, or that changed under it, is fetched this often.
const TRIES_MAX: u32 = 3;
const LISTS_AT_ONCE: usize = 8;
const SHOWN_FAILURES: usize = 20;

/// Write namespaces to a directory tree, byte for byte
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The directory: a new or an empty one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only this namespace; its content goes directly into DIR [default: all, each at its full path]
    #[arg(long, value_name = "NAMESPACE")]
    from: Option<String>,
    /// Write into a directory that holds something, over files of the same name
    #[arg(long)]
    overwrite: bool,
    /// Values in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Counts of an export.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tally {
    written: u64,
    unchanged: u64,
    /// Deleted between the list and the fetch.
    gone: u64,
    bytes: u64,
    failures: Vec<NotWritten>,
}

/// A key that has no file now.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotWritten {
    namespace: String,
    key: String,
    reason: String,
    damaged: bool,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    directory: String,
    namespace: Option<String>,
    complete: bool,
    #[serde(flatten)]
    tally: Tally,
    seconds: f64,
}

/// How one key ended well.
enum Done {
    Written(u64),
    Unchanged,
    Gone,
}

/// What all parts of an export share.
struct Work {
    client: Client,
    tree: Tree,
    overwrite: bool,
    tally: Mutex<Tally>,
    bar: ProgressBar,
}

pub(crate) async fn run(args: ExportArgs) -> Result<ExitCode, Failure> {
    if let Some(from) = &args.from {
        check_namespace(from)?;
    }
    let client = args.connect.client()?;
    let started = Instant::now();
    let namespaces = namespaces(&client, args.from.as_deref()).await?;
    let work = Arc::new(Work {
        client,
        tree: prepare(&args.dir, args.overwrite)?,
        overwrite: args.overwrite,
        tally: Mutex::default(),
        bar: progress(),
    });
    let strip = args.from.as_ref().map_or(0, |from| from.split('/').count());
    export(&work, namespaces, strip, usize::from(args.concurrency)).await?;
    work.bar.finish_and_clear();
    let tally = work.tally.lock().clone();
    let report = Report {
        directory: args.dir.display().to_string(),
        namespace: args.from,
        complete: tally.failures.is_empty(),
        tally,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.out.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    match &report.tally.failures[..] {
        [] => Ok(ExitCode::SUCCESS),
        failures => {
            let damaged = failures.iter().any(|failure| failure.damaged);
            let kind = if damaged {
                ErrorKind::Damaged
            } else {
                ErrorKind::Unknown
            };
            Err(Failure::new(
                kind,
                format!("{} keys have no file, each is named above", failures.len()),
            ))
        }
    }
}

/// The namespace and all below it, or all.
async fn namespaces(client: &Client, from: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    if let Some(from) = from {
        client.get_namespace(from, ReadMode::Linearizable).await?;
        all.push(from.to_owned());
    }
    let mut pages = Namespaces::new(client, from, ReadMode::Linearizable);
    while let Some(page) = pages.next().await? {
        all.extend(page.into_iter().map(|info| info.namespace));
    }
    Ok(all)
}

/// Opens DIR; an existing one must be empty unless the user says otherwise.
fn prepare(dir: &Path, overwrite: bool) -> Result<Tree, Failure> {
    let failed = |doing: &str, e: &std::io::Error| Failure::local(doing, dir, e);
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() && !overwrite {
                return Err(Failure::usage(format!("{} is not empty", dir.display()))
                    .with_hint("name a new directory, or write over this one with --overwrite"));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).map_err(|e| failed("create", &e))?;
        }
        Err(e) => return Err(failed("open", &e)),
    }
    Tree::open(dir).map_err(|e| failed("open", &e))
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {binary_bytes} ({binary_bytes_per_sec}) {msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// A key and the directory that its file goes to.
type Listed = (Arc<Place>, EntryHead);

/// Lists some namespaces ahead of the fetching, which goes key by key.
async fn export(
    work: &Arc<Work>,
    namespaces: Vec<String>,
    strip: usize,
    concurrency: usize,
) -> Result<(), Failure> {
    let (found, mut keys) = mpsc::channel::<Listed>(1000);
    let lister = {
        let work = work.clone();
        tokio::spawn(async move {
            let mut busy = JoinSet::new();
            for namespace in namespaces {
                if busy.len() >= LISTS_AT_ONCE {
                    joined(busy.join_next().await)?;
                }
                busy.spawn(list(work.clone(), namespace, strip, found.clone()));
            }
            finished(busy).await
        })
    };
    let mut busy = JoinSet::new();
    while let Some((place, head)) = keys.recv().await {
        if busy.len() >= concurrency {
            joined(busy.join_next().await)?;
        }
        let work = work.clone();
        busy.spawn(async move { work.take(&place, &head).await });
    }
    finished(busy).await?;
    joined(Some(lister.await))
}

async fn list(
    work: Arc<Work>,
    namespace: String,
    strip: usize,
    found: mpsc::Sender<Listed>,
) -> Result<(), Failure> {
    work.bar.set_message(escape::text(&namespace).into_owned());
    let place = work
        .tree
        .place(namespace.split('/').skip(strip))
        .map(Arc::new);
    let mut pages = Entries::new(&work.client, &namespace, ReadMode::Linearizable);
    loop {
        let page = match pages.next().await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(()),
            // Deleted since it was listed.
            Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        for entry in page {
            match &place {
                Ok(place) => {
                    if found.send((place.clone(), entry.head)).await.is_err() {
                        // The fetching has failed, and says why.
                        return Ok(());
                    }
                }
                Err(e) => work.not_written(&entry.head, format!("no directory: {e}"), false),
            }
        }
    }
}

async fn finished(mut busy: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while !busy.is_empty() {
        joined(busy.join_next().await)?;
    }
    Ok(())
}

/// A failure that concerns all keys ends the export.
fn joined(
    result: Option<Result<Result<(), Failure>, tokio::task::JoinError>>,
) -> Result<(), Failure> {
    match result {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Failure::new(
            ErrorKind::Bug,
            format!("a part of the export broke: {error}"),
        )),
        None => Ok(()),
    }
}

/// Why a key has no file.
enum Trouble {
    /// This key only.
    Here { reason: String, damaged: bool },
    /// All of them.
    Everywhere(Failure),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        if matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::ReadOnlyFilesystem
        ) {
            return Self::Everywhere(Failure::usage(format!("write: {error}")));
        }
        Self::Here {
            reason: error.to_string(),
            damaged: false,
        }
    }
}

impl Work {
    async fn take(&self, place: &Arc<Place>, head: &EntryHead) -> Result<(), Failure> {
        let done = self.fetch(place, head).await;
        let mut tally = self.tally.lock();
        match done {
            Ok(Done::Written(bytes)) => {
                tally.written += 1;
                tally.bytes += bytes;
            }
            Ok(Done::Unchanged) => tally.unchanged += 1,
            Ok(Done::Gone) => tally.gone += 1,
            Err(Trouble::Here { reason, damaged }) => {
                drop(tally);
                self.not_written(head, reason, damaged);
            }
            Err(Trouble::Everywhere(failure)) => return Err(failure),
        }
        Ok(())
    }

    fn not_written(&self, head: &EntryHead, reason: String, damaged: bool) {
        let (namespace, key) = (head.namespace.clone(), head.key.clone());
        self.tally.lock().failures.push(NotWritten {
            namespace,
            key,
            reason,
            damaged,
        });
    }

    async fn fetch(&self, place: &Arc<Place>, head: &EntryHead) -> Result<Done, Trouble> {
        if self.overwrite && self.is_there(place, head).await? {
            return Ok(Done::Unchanged);
        }
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let entry = match self
                .client
                .get_raw(&head.namespace, &head.key, ReadMode::Linearizable)
                .await
            {
                Ok(answered) => answered.value,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Done::Gone),
                Err(error @ ClientError::Name { .. }) => {
                    return Err(Trouble::Here {
                        reason: error.to_string(),
                        damaged: false,
                    });
                }
                Err(error) => return Err(Trouble::Everywhere(error.into())),
            };
            match self.write(place, head, entry).await {
                Err(Trouble::Here {
                    reason,
                    damaged: true,
                }) => last = Some(reason),
                other => return other.map(Done::Written),
            }
        }
        Err(Trouble::Here {
            reason: last.unwrap_or_default(),
            damaged: true,
        })
    }

    /// Whether the file holds the listed bytes already.
    async fn is_there(&self, place: &Arc<Place>, head: &EntryHead) -> Result<bool, Trouble> {
        let (place, key, size, hash) = (
            place.clone(),
            head.key.clone(),
            head.size,
            head.value_hash.clone(),
        );
        let compared = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
            let Some(file) = place.existing(&key)? else {
                return Ok(false);
            };
            Ok(file.metadata()?.len() == size && of_reader(&key, file)?.hash == hash)
        });
        compared
            .await
            .map_err(|e| Trouble::Everywhere(Failure::new(ErrorKind::Bug, e.to_string())))?
            .map_err(Trouble::from)
    }

    async fn write(
        &self,
        place: &Place,
        head: &EntryHead,
        mut entry: RawEntry,
    ) -> Result<u64, Trouble> {
        let (pending, file) = place.begin(rand::random())?;
        let mut file = tokio::fs::File::from_std(file);
        let mut hasher = ValueHasher::new();
        let mut bytes = 0;
        loop {
            let chunk = match entry.body.next_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    return Err(Trouble::Here {
                        reason: error.to_string(),
                        damaged: true,
                    });
                }
            };
            hasher.update(&chunk);
            bytes += chunk.len() as u64;
            file.write_all(&chunk).await?;
            self.bar.inc(chunk.len() as u64);
        }
        file.flush().await?;
        let hash = hex::encode(hasher.finish());
        // Another version than the listed one has another hash, which the list cannot know.
        if entry.version.is_none_or(|version| version == head.version) && hash != head.value_hash {
            let reason = format!(
                "damaged: {bytes} bytes hash to {hash}, the entry says {}",
                head.value_hash
            );
            return Err(Trouble::Here {
                reason,
                damaged: true,
            });
        }
        pending.commit(&head.key)?;
        Ok(bytes)
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let tally = &report.tally;
    for failure in tally.failures.iter().take(SHOWN_FAILURES) {
        let name = format!("{}/{}", failure.namespace, failure.key);
        eprintln!(
            "NOT WRITTEN {}: {}",
            escape::text(&name),
            escape::text(&failure.reason)
        );
    }
    if tally.failures.len() > SHOWN_FAILURES {
        eprintln!(
            "and {} more (--json lists all)",
            tally.failures.len() - SHOWN_FAILURES
        );
    }
    let gone = if tally.gone > 0 {
        format!(", {} deleted meanwhile", tally.gone)
    } else {
        String::new()
    };
    let failed = if tally.failures.is_empty() {
        String::new()
    } else {
        format!(", {} NOT WRITTEN", tally.failures.len())
    };
    output::line(&format!(
        "exported {} to {}: {} files written, {}, {} there already{gone}{failed}, in {:.1} s",
        report.namespace.as_deref().unwrap_or("all namespaces"),
        report.directory,
        tally.written,
        output::bytes(tally.bytes),
        tally.unchanged,
        report.seconds,
    ))
}
