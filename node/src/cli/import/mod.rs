//! `confman import`: a directory tree into namespaces (its directories) and keys (its files).
//!
//! Promises:
//! - bytes are stored exactly, so that `confman export` writes the same tree; the type is told by the content;
//! - what is there already with the same bytes and type is not sent, so a second run makes no new version and an
//!   import that was interrupted goes on where it stopped;
//! - what was not imported is reported with its reason, and the exit code says so;
//! - memory does not grow with the tree: directories are taken one after the other, large files are streamed.
//!
//! Does not: delete keys that are not in the tree; follow links; keep modes, times or empty directories.
//!
//! Where to go next: [`walk`] (what is taken), [`pack`] (batches), [`send`] (the network), [`tally`] (the report).

mod pack;
mod send;
mod tally;
mod walk;

use std::collections::HashMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use confman_client::wire::ValueType;
use confman_client::{Client, ErrorKind, ReadMode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connect::{ConnectArgs, OutputArgs};
use super::content::{Judge, Seen, of_reader};
use super::failure::Failure;
use super::output;
use super::pages::Entries;
use super::path::check_namespace;
use pack::Packed;
use tally::{Did, Report, Tally};
use walk::{Dir, File, Options, Skip};

/// Up to this size a value travels in a batch.
const SMALL_BYTES_MAX: u64 = 256 << 10;
const DIRS_AT_ONCE: usize = 8;
const LARGE_AT_ONCE: usize = 2;

/// Import a directory tree: directories become namespaces, files become keys
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 7 when something that is a value could not be imported; what is skipped by rule (links, sockets, .git) \
does not count. Running it again goes on where it stopped: what is there already is not sent.")]
pub(crate) struct ImportArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The namespace that the directory becomes [default: the directory's name]
    #[arg(long, value_name = "NAMESPACE")]
    into: Option<String>,
    /// Compare only, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Take .git too
    #[arg(long)]
    include_git: bool,
    /// Skip files that are larger; as CONFMAN_VALUE_MAX_BYTES on the nodes
    #[arg(long, value_name = "BYTES", default_value_t = 104_857_600)]
    value_bytes_max: u64,
    /// Batches in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrency: u16,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What all parts of an import share.
struct Work {
    client: Client,
    root: PathBuf,
    dry_run: bool,
    /// Nothing was there when it began, so nothing needs comparing.
    fresh: bool,
    concurrency: usize,
    large_places: Semaphore,
    tally: Mutex<Tally>,
    stopped: AtomicBool,
    failure: Mutex<Option<Failure>>,
    bar: ProgressBar,
}

impl Work {
    fn did(&self, did: Did, bytes: u64) {
        self.tally.lock().add(did, bytes);
        self.bar.inc(bytes);
    }

    fn skip(&self, skip: Skip, bytes: u64) {
        self.tally.lock().skips.push(skip);
        self.bar.inc(bytes);
    }

    /// Ends the import; the first failure is the one that counts.
    fn stop(&self, failure: Failure) {
        self.failure.lock().get_or_insert(failure);
        self.stopped.store(true, Ordering::Release);
    }

    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

pub(crate) async fn run(args: ImportArgs) -> Result<ExitCode, Failure> {
    let root = args
        .dir
        .canonicalize()
        .map_err(|e| Failure::local("open", &args.dir, &e))?;
    if !root.is_dir() {
        return Err(
            Failure::usage(format!("{} is not a directory", args.dir.display()))
                .with_hint("`confman put PATH --file FILE` writes one file"),
        );
    }
    let into = namespace_for(&root, args.into.as_deref())?;
    let correlation_id = format!("import-{}", hex::encode(rand::random::<[u8; 6]>()));
    let client = args.connect.client_for_work(Some(correlation_id.clone()))?;
    let started = Instant::now();
    let fresh = match client.get_namespace(&into, ReadMode::Linearizable).await {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(error.into()),
    };
    let options = Options {
        include_git: args.include_git,
        value_bytes_max: args.value_bytes_max,
    };
    let work = Arc::new(Work {
        client,
        root: root.clone(),
        dry_run: args.dry_run,
        fresh,
        concurrency: usize::from(args.concurrency),
        large_places: Semaphore::new(LARGE_AT_ONCE),
        tally: Mutex::default(),
        stopped: AtomicBool::new(false),
        failure: Mutex::default(),
        bar: progress(&root, options).await,
    });
    import(&work, &into, options).await?;
    work.bar.finish_and_clear();
    let failure = work.failure.lock().take();
    let tally = work.tally.lock().clone();
    let error = failure.as_ref().map(ToString::to_string);
    let source = root.display().to_string();
    let report = Report::new(
        source,
        into,
        args.dry_run,
        tally,
        started.elapsed(),
        correlation_id,
        error,
    );
    if args.out.json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    match failure {
        Some(failure) => Err(failure.with_hint(
            "run it again when that is mended: what is there already is not sent again",
        )),
        None if report.lost > 0 => Err(Failure::new(
            ErrorKind::Unknown,
            format!(
                "{} of the tree could not be imported, each is named above",
                report.lost
            ),
        )),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// `--into`, or the directory's own name.
fn namespace_for(root: &Path, into: Option<&str>) -> Result<String, Failure> {
    let into = match into {
        Some(into) => into.to_owned(),
        None => root
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "{} has no name that can be a namespace",
                    root.display()
                ))
                .with_hint("name one with --into NAMESPACE")
            })?,
    };
    if into.is_empty() {
        return Err(
            Failure::usage("--into is empty, but every key needs a namespace")
                .with_hint("leave --into out to use the directory's name"),
        );
    }
    check_namespace(&into)?;
    Ok(into)
}

/// A bar on a terminal, after a quick count of what is there; nothing elsewhere.
async fn progress(root: &Path, options: Options) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let root = root.to_owned();
    let total = tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        walk::walk(&root, "count", options, |dir| {
            bytes += dir.files.iter().map(|file| file.bytes).sum::<u64>();
            true
        });
        bytes
    });
    let bar = ProgressBar::new(total.await.unwrap_or_default());
    let style =
        "{bar:40} {binary_bytes} of {binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

async fn import(work: &Arc<Work>, into: &str, options: Options) -> Result<(), Failure> {
    let (dirs_in, mut dirs) = mpsc::channel(DIRS_AT_ONCE);
    let (root, into) = (work.root.clone(), into.to_owned());
    let walker = tokio::task::spawn_blocking(move || {
        walk::walk(&root, &into, options, |dir| {
            dirs_in.blocking_send(dir).is_ok()
        });
    });
    let (items_in, items) = mpsc::channel(64);
    let sender = tokio::spawn(send::small(work.clone(), items));
    let mut busy = JoinSet::new();
    while let Some(dir) = dirs.recv().await {
        if work.has_stopped() {
            break;
        }
        if busy.len() >= DIRS_AT_ONCE {
            joined(busy.join_next().await)?;
        }
        busy.spawn(take_dir(work.clone(), dir, items_in.clone()));
    }
    // The walker ends when nobody listens, the sender when nobody sends.
    drop((dirs, items_in));
    while !busy.is_empty() {
        joined(busy.join_next().await)?;
    }
    joined(Some(sender.await))?;
    joined(Some(walker.await))
}

fn joined(result: Option<Result<(), tokio::task::JoinError>>) -> Result<(), Failure> {
    match result {
        Some(Err(error)) => Err(Failure::new(
            ErrorKind::Bug,
            format!("a part of the import broke: {error}"),
        )),
        _ => Ok(()),
    }
}

/// What a key holds now: hash and type.
type There = HashMap<String, (String, ValueType)>;

async fn take_dir(work: Arc<Work>, dir: Dir, items: mpsc::Sender<Packed>) {
    work.tally.lock().skips.extend(dir.skips);
    if dir.files.is_empty() {
        return;
    }
    let there = match compare_with(&work, &dir.namespace).await {
        Ok(there) => there,
        Err(failure) => return work.stop(failure),
    };
    for file in dir.files {
        if work.has_stopped() {
            return;
        }
        take_file(&work, &dir.namespace, file, &there, &items).await;
    }
}

async fn compare_with(work: &Work, namespace: &str) -> Result<There, Failure> {
    let mut there = There::new();
    if work.fresh {
        return Ok(there);
    }
    let mut pages = Entries::new(&work.client, namespace, ReadMode::Linearizable);
    loop {
        match pages.next().await {
            Ok(Some(page)) => {
                there.extend(
                    page.into_iter()
                        .map(|e| (e.head.key, (e.head.value_hash, e.head.value_type))),
                );
            }
            Ok(None) => return Ok(there),
            Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => return Ok(there),
            Err(failure) => return Err(failure),
        }
    }
}

async fn take_file(
    work: &Work,
    namespace: &str,
    file: File,
    there: &There,
    items: &mpsc::Sender<Packed>,
) {
    let for_reading = file.clone();
    let read = tokio::task::spawn_blocking(move || read(&for_reading)).await;
    let (seen, bytes) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(e)) => {
            return work.skip(
                Skip::lost(&file.path, &work.root, format!("cannot be read: {e}")),
                file.bytes,
            );
        }
        Err(e) => return work.stop(Failure::new(ErrorKind::Bug, format!("a reader broke: {e}"))),
    };
    let file = File {
        bytes: seen.bytes,
        ..file
    };
    let now = there.get(&file.key);
    if now.is_some_and(|(hash, value_type)| *hash == seen.hash && *value_type == seen.value_type) {
        return work.did(Did::Unchanged, file.bytes);
    }
    if work.dry_run {
        return work.did(
            if now.is_some() {
                Did::Updated
            } else {
                Did::Created
            },
            file.bytes,
        );
    }
    match bytes {
        Some(bytes) => {
            let packed = Packed::new(
                file.path,
                namespace.to_owned(),
                file.key,
                seen.value_type,
                &bytes,
            );
            // A sender that has gone has stopped the work and said why.
            let _ = items.send(packed).await;
        }
        None => send::large(work, namespace, &file, seen.value_type).await,
    }
}

/// One pass: what it is, and the bytes if they are few.
fn read(file: &File) -> std::io::Result<(Seen, Option<Vec<u8>>)> {
    let mut reader = std::fs::File::open(&file.path)?;
    if file.bytes > SMALL_BYTES_MAX {
        return Ok((of_reader(&file.key, reader)?, None));
    }
    let mut bytes = Vec::with_capacity(file.bytes as usize);
    reader
        .by_ref()
        .take(SMALL_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_BYTES_MAX {
        // It has grown since it was listed.
        return Ok((
            of_reader(&file.key, std::fs::File::open(&file.path)?)?,
            None,
        ));
    }
    let mut judge = Judge::new(&file.key);
    judge.push(&bytes);
    Ok((judge.finish(), Some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_the_directorys_name_unless_said_otherwise() {
        let root = Path::new("/srv/settings");
        assert_eq!(namespace_for(root, None).unwrap(), "settings");
        assert_eq!(namespace_for(root, Some("a/b")).unwrap(), "a/b");
        assert!(
            namespace_for(root, Some(""))
                .unwrap_err()
                .to_string()
                .contains("every key needs a namespace")
        );
        assert!(
            namespace_for(Path::new("/"), None)
                .unwrap_err()
                .to_string()
                .contains("no name")
        );
        assert!(namespace_for(root, Some("a//b")).is_err());
    }
}
