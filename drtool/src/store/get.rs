//! `drtool get`: one value out of a snapshot, by range reads.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use confman_cli::escape;
use confman_cli::failure::{Failure, stdout_failed};
use confman_cli::output;
use confman_client::ErrorKind;
use confman_client::wire::{EntryHead, Time, ValueType};
use confman_snapshot::{GroupId, SnapshotId, fnv1a64};
use confman_store::records::{ClusterRecord, EntryRecord, TombstoneRecord};
use confman_store::{keys, names};
use serde::Serialize;
use serde_json::value::RawValue;

use super::pick::{GroupArgs, Picked, Wanted};
use super::reader::StoreReader;
use super::records::Records;
use super::values::{self, ValuePieces};
use super::{StoreArgs, errors};
use crate::codes;
use crate::context::Global;

/// The most that is shown on a terminal; more is for a file.
const TERMINAL_BYTES_MAX: u64 = 1 << 20;

/// Print one value out of a snapshot, reading only the parts of the object that hold it
#[derive(Debug, Args)]
#[command(after_help = "\
What is read is proven by its own sums and the value by its hash; the snapshot as a whole is proven by \
`drtool snapshot verify --read-data`. -v says how many bytes were read.")]
pub struct GetArgs {
    /// The entry as NAMESPACE/KEY; with --key, the namespace alone
    #[arg(value_name = "PATH")]
    path: String,
    /// The key, when it holds a slash itself
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The snapshot: its id or the beginning of it, its index, or `latest` [of the group that holds the namespace]
    #[arg(long, value_name = "ID", default_value = "latest")]
    snapshot: Wanted,
    /// Write the value to this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Print the bytes as they are, on a terminal too
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(flatten)]
    head: EntryHead,
    value: Box<RawValue>,
    snapshot: Source,
    bytes_read: u64,
    object_bytes: u64,
}

/// Where the value is from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    group: GroupId,
    id: SnapshotId,
    index: u64,
    last_change_at: Time,
}

/// Runs the command.
///
/// # Errors
/// There is no such snapshot or entry; the store fails; what is there is damaged.
pub async fn run(args: GetArgs, global: &Global) -> Result<ExitCode, Failure> {
    let (namespace, key) = split(&args)?;
    let store = args.store.reader(global).await?;
    let searched = pick(&store, &args, namespace);
    let picked = global
        .during("the snapshot is looked for", searched)
        .await?;
    let failed = |error| errors::snapshot(&error);
    let reader = store.open(&picked.group, &picked.listed.id).await;
    let mut records = Records::new(reader.map_err(failed)?);
    let entry: Option<EntryRecord> = records
        .record(&keys::entry(namespace, key))
        .await
        .map_err(failed)?;
    let Some(entry) = entry else {
        return Err(absent(&mut records, namespace, key).await?);
    };
    let head = values::entry_head(namespace, key, &entry.head.clone().unwrap_or_default());
    let object = records.reader().object().to_owned();
    let mut pieces = ValuePieces::new(&object, namespace, key, entry);
    if global.json {
        let whole = pieces.whole(&mut records).await.map_err(failed)?;
        let value = values::to_json(head.value_type, &whole).map_err(|error| {
            let what = format!(
                "the value of {:?} is no {}: {error}",
                args.path, head.value_type
            );
            codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, what)
        })?;
        let manifest = records.manifest();
        output::json(&Document {
            head,
            value,
            snapshot: Source {
                group: manifest.group.clone(),
                id: manifest.id,
                index: manifest.position.index,
                last_change_at: Time::from_us(manifest.last_time_us),
            },
            bytes_read: store.bytes_read(),
            object_bytes: records.reader().object_bytes(),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    match &args.output {
        Some(path) => to_file(&mut pieces, &mut records, path).await?,
        None if std::io::stdout().is_terminal() && !args.raw => {
            check_for_terminal(&head)?;
            let whole = pieces.whole(&mut records).await.map_err(failed)?;
            let text = String::from_utf8_lossy(&whole);
            let end = if text.ends_with('\n') { "" } else { "\n" };
            write!(std::io::stdout().lock(), "{}{end}", escape::lines(&text))
                .map_err(|error| stdout_failed(&error))?;
        }
        None => to_stdout(&mut pieces, &mut records).await?,
    }
    global.note(format!(
        "{} {}: version {} of {}, {} of {} bytes read",
        picked.group,
        picked.listed.id,
        head.version,
        head.updated_at,
        store.bytes_read(),
        records.reader().object_bytes()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Namespace and key.
fn split(args: &GetArgs) -> Result<(&str, &str), Failure> {
    let (namespace, key) = match &args.key {
        Some(key) => (args.path.as_str(), key.as_str()),
        None => args.path.rsplit_once('/').ok_or_else(|| {
            codes::usage("ARGUMENT", format!("{:?} names no namespace", args.path))
                .with_hint("an entry is NAMESPACE/KEY, for example shop/eu/tax")
        })?,
    };
    names::check_namespace(namespace)
        .map_err(|error| codes::usage("ARGUMENT", format!("namespace {namespace:?}: {error}")))?;
    names::check_key(key)
        .map_err(|error| codes::usage("ARGUMENT", format!("key {key:?}: {error}")))?;
    Ok((namespace, key))
}

/// The snapshot of the group that holds the namespace.
async fn pick(store: &StoreReader, args: &GetArgs, namespace: &str) -> Result<Picked, Failure> {
    if args.group.group.is_some() {
        return store.pick(&args.snapshot, args.group.group.as_ref()).await;
    }
    let shards = shards(store).await?;
    let route = fnv1a64(names::first_segment(namespace).as_bytes()) % u64::from(shards);
    let group = GroupId::config(u32::try_from(route).unwrap_or_default());
    store.pick(&args.snapshot, Some(&group)).await
}

/// How many `config/` groups the cluster has: its own word, in a snapshot of `__meta/0`; without one, as many as have
/// snapshots.
async fn shards(store: &StoreReader) -> Result<u32, Failure> {
    let groups = store.groups(None).await?;
    let listed = groups.get(&GroupId::meta()).map_or(&[][..], Vec::as_slice);
    let facts = store.facts(&GroupId::meta(), listed).await;
    if let Some(facts) = facts.map_err(|error| errors::snapshot(&error))? {
        let mut records = Records::new(facts.told_by);
        let cluster: Option<ClusterRecord> = records
            .record(&keys::cluster())
            .await
            .map_err(|error| errors::snapshot(&error))?;
        if let Some(cluster) = cluster.filter(|cluster| cluster.shards > 0) {
            return Ok(cluster.shards);
        }
    }
    let config = GroupId::config(0);
    let highest = groups
        .keys()
        .filter(|group| group.topic() == config.topic())
        .map(|group| group.partition().saturating_add(1))
        .max();
    Ok(highest.unwrap_or(1))
}

/// Why there is no such entry.
async fn absent(records: &mut Records, namespace: &str, key: &str) -> Result<Failure, Failure> {
    let stone: Option<TombstoneRecord> = records
        .record(&keys::tombstone(namespace, key))
        .await
        .map_err(|error| errors::snapshot(&error))?;
    let (group, id) = (&records.manifest().group, records.manifest().id);
    let name = format!("{namespace}/{key}");
    let what = match stone {
        Some(stone) => format!(
            "{name:?} had been deleted when snapshot {id} of {group} was taken: version {} at {}",
            stone.version,
            Time::from_us(stone.deleted_us)
        ),
        None => format!("there is no {name:?} in snapshot {id} of {group}"),
    };
    Ok(codes::refuse("ENTRY_NOT_FOUND", ErrorKind::NotFound, what)
        .with_hint("an older snapshot may have it (`drtool snapshot list`); a key that holds a slash is given with --key"))
}

fn check_for_terminal(head: &EntryHead) -> Result<(), Failure> {
    let why = if head.value_type == ValueType::Binary {
        format!("this is a binary value of {}", output::bytes(head.size))
    } else if head.size > TERMINAL_BYTES_MAX {
        format!("this value has {}", output::bytes(head.size))
    } else {
        return Ok(());
    };
    Err(
        codes::usage("ARGUMENT", format!("{why}, and stdout is a terminal"))
            .with_hint("write it to a file with --output FILE, or print it with --raw"),
    )
}

async fn to_stdout(pieces: &mut ValuePieces, records: &mut Records) -> Result<(), Failure> {
    while let Some(piece) = next(pieces, records).await? {
        std::io::stdout()
            .write_all(&piece)
            .map_err(|error| stdout_failed(&error))?;
    }
    std::io::stdout()
        .flush()
        .map_err(|error| stdout_failed(&error))
}

/// The file appears when the value is whole.
async fn to_file(
    pieces: &mut ValuePieces,
    records: &mut Records,
    path: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| codes::local("write", path, &error);
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file =
        tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    while let Some(piece) = next(pieces, records).await? {
        file.write_all(&piece).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

async fn next(pieces: &mut ValuePieces, records: &mut Records) -> Result<Option<Vec<u8>>, Failure> {
    let piece = pieces.next(records).await;
    piece.map_err(|error| errors::snapshot(&error))
}
