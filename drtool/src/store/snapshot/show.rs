//! `drtool snapshot show`: all that a snapshot's manifest says, and what the group says of it.

use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use serde::Serialize;

use super::Summary;
use super::list::{Standing, standing};
use crate::context::Global;
use crate::store::pick::{GroupArgs, Wanted};
use crate::store::{StoreArgs, errors};

/// Show what a snapshot holds
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The snapshot: its id or the beginning of it, its index, or `latest` [of config/0 without --group]
    #[arg(value_name = "ID")]
    snapshot: Wanted,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    store: String,
    standing: Standing,
    #[serde(flatten)]
    manifest: Summary,
}

pub(super) async fn run(args: &ShowArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let picked = store
        .pick(&args.snapshot, args.group.group.as_ref())
        .await?;
    let group = &picked.group;
    let reader = store.open(group, &picked.listed.id).await;
    let reader = reader.map_err(|error| errors::snapshot(&error))?;
    let listing = store.snapshots(group).await;
    let listing = listing.map_err(|error| errors::store(&error))?;
    let facts = store.facts(group, &listing.snapshots).await;
    let facts = facts.map_err(|error| errors::snapshot(&error))?;
    let document = Document {
        store: store.url().to_owned(),
        standing: standing(facts.as_ref(), &picked.listed),
        manifest: Summary::new(&reader),
    };
    if global.json {
        output::json(&document)?;
    } else {
        print(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(document: &Document) -> Result<(), Failure> {
    let m = &document.manifest;
    let or_none = |list: &[String]| match list {
        [] => "none".to_owned(),
        list => list.join(", "),
    };
    let standing = match document.standing {
        Standing::Newest => "the newest; its record came after it",
        Standing::Recorded => "recorded by the group",
        Standing::Marked => "recorded by the group, and marked for deletion",
        Standing::NotRecorded => "not recorded by the group",
        Standing::Unknown => "unknown: a newer snapshot cannot be read",
    };
    let lines = [
        ("snapshot", m.id.to_string()),
        ("group", m.group.to_string()),
        (
            "cluster",
            format!("{}, incarnation {}", m.cluster_uuid, m.incarnation),
        ),
        ("position", format!("index {}, term {}", m.index, m.term)),
        ("taken", m.created_at.to_string()),
        ("last change", m.last_change_at.to_string()),
        ("voters then", or_none(&m.voters)),
        ("records", m.records.to_string()),
        (
            "size",
            format!(
                "{} in {} chunks ({}), {} before compression",
                output::bytes(m.object_bytes),
                m.chunks,
                m.codecs.join(", "),
                output::bytes(m.raw_bytes)
            ),
        ),
        ("object", format!("{} in {}", m.object, document.store)),
        ("refers to", or_none(&m.references)),
        ("state hash", m.state_hash.clone()),
        ("manifest hash", m.manifest_hash.clone()),
        ("standing", standing.to_owned()),
    ];
    for (name, value) in lines {
        output::line(&format!("{name:<14} {value}"))?;
    }
    output::line(
        "Footer, manifest and header are proven; `drtool snapshot verify --read-data` proves the rest.",
    )
}
