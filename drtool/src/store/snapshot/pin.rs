//! `drtool snapshot pin` and `unpin`: a snapshot that retention leaves alone.

use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_client::wire::Time;
use confman_snapshot::paths::NoteKind;
use confman_snapshot::repository::{Listed, Note};
use confman_snapshot::source::ChunkSource as _;
use confman_snapshot::{GroupId, Kind, Repository};
use serde::Serialize;

use crate::codes;
use crate::context::Global;
use crate::store::pick::{GroupArgs, Picked, Wanted, choose};
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors, now_us};

/// Keep a snapshot, whatever retention would do
#[derive(Debug, Args)]
#[command(after_help = "\
A pin is an object under pins/ in the store; nodes and `drtool retention` honour it. It stays until `drtool snapshot unpin`. \
A snapshot that is marked already may be deleted in the moment that it is pinned: the command looks again and says so.")]
pub(super) struct PinArgs {
    /// The snapshot: its id or the beginning of it, its index, or `latest` [of config/0 without --group]
    #[arg(value_name = "ID")]
    snapshot: Wanted,
    /// Why, for whoever looks at it in a year
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who pins it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    by: String,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Let retention judge a pinned snapshot as any other
#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The snapshot: its id or the beginning of it, or its index
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
    group: GroupId,
    id: String,
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn pin(args: &PinArgs, global: &Global) -> Result<ExitCode, Failure> {
    let repository = args.store.open(global).await?;
    let store = StoreReader::new(repository.clone());
    let picked = store
        .pick(&args.snapshot, args.group.group.as_ref())
        .await?;
    let (group, id) = (picked.group.clone(), picked.listed.id);
    let note = Note::new(group.clone(), id, now_us(), &args.by, &args.reason);
    let put = repository.put_note(NoteKind::Pin, &note).await;
    let note = put.map_err(|error| errors::store(&error))?;
    still_there(&repository, &picked).await?;
    let document = Document {
        store: repository.url().to_owned(),
        group,
        id: id.to_string(),
        pinned: true,
        pinned_at: Some(Time::from_us(note.created_us)),
        pinned_by: Some(note.created_by),
        reason: Some(note.reason),
    };
    document.print(global)
}

/// A pin on nothing would be a false promise.
async fn still_there(repository: &Repository, picked: &Picked) -> Result<(), Failure> {
    match repository.size(&picked.listed.object).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::NotFound => {
            let (group, id) = (&picked.group, &picked.listed.id);
            let removed = repository.delete_note(NoteKind::Pin, group, id).await;
            removed.map_err(|error| errors::store(&error))?;
            let what = format!("snapshot {id} of {group} was deleted while it was being pinned");
            Err(codes::refuse("STORE_NOT_FOUND", ErrorKind::NotFound, what)
                .with_hint("`drtool snapshot list` shows what is left"))
        }
        Err(error) => Err(errors::store(&error)),
    }
}

pub(super) async fn unpin(args: &UnpinArgs, global: &Global) -> Result<ExitCode, Failure> {
    let repository = args.store.open(global).await?;
    let told = |error| errors::store(&error);
    if args.snapshot == Wanted::Latest {
        return Err(
            codes::usage("ARGUMENT", "`latest` may be another one than was pinned")
                .with_hint("give the id; `drtool retention show` names what is pinned"),
        );
    }
    // Among the pins: the snapshot itself may be gone.
    let groups = match &args.group.group {
        Some(group) => vec![group.clone()],
        None => repository
            .list_note_groups(NoteKind::Pin)
            .await
            .map_err(told)?,
    };
    let mut pinned = std::collections::BTreeMap::new();
    for group in groups {
        let ids = repository.list_notes(NoteKind::Pin, &group).await;
        let listed = ids.map_err(told)?.into_iter().map(|id| Listed {
            id,
            object: String::new(),
            bytes: 0,
        });
        pinned.insert(group, listed.collect());
    }
    let group = args.group.group.as_ref();
    let picked =
        choose(&args.snapshot, group, pinned, repository.url()).map_err(|failure| match failure
            .kind()
        {
            Some(ErrorKind::NotFound) => codes::refuse(
                "STORE_NOT_FOUND",
                ErrorKind::NotFound,
                format!(
                    "no snapshot {} is pinned in {}",
                    args.snapshot,
                    repository.url()
                ),
            )
            .with_hint("`drtool retention show` names what is pinned"),
            _ => failure,
        })?;
    let (group, id) = (picked.group, picked.listed.id);
    repository
        .delete_note(NoteKind::Pin, &group, &id)
        .await
        .map_err(told)?;
    let document = Document {
        store: repository.url().to_owned(),
        group,
        id: id.to_string(),
        pinned: false,
        pinned_at: None,
        pinned_by: None,
        reason: None,
    };
    document.print(global)
}

impl Document {
    fn print(&self, global: &Global) -> Result<ExitCode, Failure> {
        if global.json {
            output::json(self)?;
        } else if self.pinned {
            let because = match self.reason.as_deref() {
                None | Some("") => String::new(),
                Some(reason) => format!(": {reason}"),
            };
            output::line(&format!(
                "{} {} is pinned by {} since {}{because}",
                self.group,
                self.id,
                self.pinned_by.as_deref().unwrap_or("unknown"),
                self.pinned_at.unwrap_or_default()
            ))?;
        } else {
            output::line(&format!("{} {} is pinned no more", self.group, self.id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
