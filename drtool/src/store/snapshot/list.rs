//! `drtool snapshot list`: every snapshot with what its own manifest says.

use std::process::ExitCode;

use clap::Args;
use confman_cli::escape;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::wire::Time;
use confman_snapshot::repository::Listed;
use confman_snapshot::{GroupId, SnapshotError};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::Summary;
use crate::context::Global;
use crate::store::facts::Facts;
use crate::store::pick::GroupArgs;
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// Manifests that are read side by side.
const OPENED_AT_ONCE: usize = 8;

/// List the snapshots in the store, newest first, with what each one's manifest says
#[derive(Debug, Args)]
#[command(after_help = "\
What is listed is what the store shows. `recorded` is what the group itself had verified and written down when the \
newest readable snapshot was taken; the newest has no record in itself. `drtool snapshot verify` proves the bytes.")]
pub(super) struct ListArgs {
    /// At most this many of each group, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What the group says of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Standing {
    /// It is the newest that can be read: its record came after it.
    Newest,
    /// The group has verified and recorded it.
    Recorded,
    /// The group has recorded it, and marked it for deletion.
    Marked,
    /// The group has not recorded it: a builder died, or it is of a life that was left.
    NotRecorded,
    /// Nothing readable tells.
    Unknown,
}

/// One snapshot.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    group: GroupId,
    id: String,
    object: String,
    bytes: u64,
    standing: Standing,
    /// What its manifest says; absent when it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Summary>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    store: String,
    clusters: Vec<Owner>,
    items: Vec<Item>,
    /// Older ones that `--limit` left out.
    left_out: usize,
    /// Objects among the snapshots whose names are not ours.
    foreign_objects: u64,
}

/// A cluster that owns the prefix.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    uuid: String,
    incarnation: u64,
    created_at: Time,
}

pub(super) async fn run(args: &ListArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let read = read(&store, args);
    let document = global.during("the snapshots are read", read).await?;
    if global.json {
        output::json(&document)?;
    } else {
        print(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(store: &StoreReader, args: &ListArgs) -> Result<Document, Failure> {
    let told = |error| errors::store(&error);
    let clusters = store.clusters().await.map_err(told)?;
    let inventory = store.inventory().await.map_err(told)?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let wanted = |group: &GroupId| args.group.group.as_ref().is_none_or(|only| only == group);
    let mut document = Document {
        store: store.url().to_owned(),
        clusters: clusters
            .into_iter()
            .map(|object| Owner {
                uuid: object.cluster.uuid,
                incarnation: object.cluster.incarnation,
                created_at: Time::from_us(object.created_us),
            })
            .collect(),
        items: Vec::new(),
        left_out: 0,
        foreign_objects: inventory.foreign,
    };
    for (group, listed) in inventory.groups.iter().filter(|(group, _)| wanted(group)) {
        document.left_out += listed.len().saturating_sub(limit);
        let items = items(store, group, listed, limit).await;
        let items = items.map_err(|error| errors::snapshot(&error))?;
        document.items.extend(items);
    }
    Ok(document)
}

async fn items(
    store: &StoreReader,
    group: &GroupId,
    listed: &[Listed],
    limit: usize,
) -> Result<Vec<Item>, SnapshotError> {
    let facts = store.facts(group, listed).await?;
    let facts = facts.as_ref();
    futures::stream::iter(listed.iter().take(limit))
        .map(|listed| async move {
            let (manifest, problem) = match store.open(group, &listed.id).await {
                Ok(reader) => (Some(Summary::new(&reader)), None),
                Err(error) if error.is_bad_snapshot() => {
                    (None, Some(errors::split(&error.to_string()).0))
                }
                Err(error) => return Err(error),
            };
            Ok(Item {
                group: group.clone(),
                id: listed.id.to_string(),
                object: listed.object.clone(),
                bytes: listed.bytes,
                standing: standing(facts, listed),
                manifest,
                problem,
            })
        })
        .buffered(OPENED_AT_ONCE)
        .try_collect()
        .await
}

/// What the group says of one snapshot.
pub(super) fn standing(facts: Option<&Facts>, listed: &Listed) -> Standing {
    let Some(facts) = facts else {
        return Standing::Unknown;
    };
    if facts.told_by.manifest().id == listed.id {
        return Standing::Newest;
    }
    // Taken after the one that tells: it cannot know.
    if facts.unreadable.iter().any(|(newer, _)| newer == listed) {
        return Standing::Unknown;
    }
    match facts.recorded.get(&listed.id) {
        Some(fact) if fact.marked_us.is_some() => Standing::Marked,
        Some(_) => Standing::Recorded,
        None => Standing::NotRecorded,
    }
}

fn print(document: &Document) -> Result<(), Failure> {
    match document.clusters.as_slice() {
        [] => output::line(&format!("{}: no cluster owns it", document.store))?,
        clusters => {
            for owner in clusters {
                output::line(&format!(
                    "{}: cluster {}, incarnation {}",
                    document.store, owner.uuid, owner.incarnation
                ))?;
            }
        }
    }
    if document.items.is_empty() {
        output::line("no snapshots")?;
    } else {
        let mut table = output::table([
            "GROUP", "INDEX", "ID", "TAKEN", "RECORDS", "SIZE", "STANDING",
        ]);
        for item in &document.items {
            table.add_row(row(item));
        }
        output::print_table(&table)?;
    }
    if document.left_out > 0 {
        output::line(&format!("and {} older ones (--limit)", document.left_out))?;
    }
    if document.foreign_objects > 0 {
        output::line(&format!(
            "{} objects among them have names that are not ours; they are left alone",
            document.foreign_objects
        ))?;
    }
    Ok(())
}

fn row(item: &Item) -> Vec<String> {
    let (index, taken, records) = match &item.manifest {
        Some(manifest) => (
            manifest.index.to_string(),
            manifest.created_at.to_string(),
            manifest.records.to_string(),
        ),
        None => (String::new(), String::new(), String::new()),
    };
    let standing = match item.standing {
        Standing::Newest => "newest",
        Standing::Recorded => "recorded",
        Standing::Marked => "marked for deletion",
        Standing::NotRecorded => "not recorded",
        Standing::Unknown => "unknown",
    };
    let standing = match &item.problem {
        Some(problem) => format!("CANNOT BE READ: {problem}"),
        None => standing.to_owned(),
    };
    [
        item.group.to_string(),
        index,
        item.id.clone(),
        taken,
        records,
        output::bytes(item.bytes),
        standing,
    ]
    .map(|cell| escape::text(&cell).into_owned())
    .to_vec()
}
