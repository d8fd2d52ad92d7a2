//! `drtool snapshot fetch`: a snapshot, with every object that it refers to, into a local folder.
//!
//! The folder has the store's own layout, so that `--store file:///FOLDER` reads it with every command here.
//!
//! Promises: an object gets its name when the whole snapshot has been read back from the disk and proven; done twice, or
//! after it was killed, it reaches the same end; nothing that is there is overwritten.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_snapshot::source::ChunkSource as _;
use confman_snapshot::{LocalFiles, SnapshotError, SnapshotReader};
use indicatif::ProgressBar;
use serde::Serialize;

use super::Summary;
use crate::codes;
use crate::context::Global;
use crate::store::pick::{GroupArgs, Wanted};
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// Bytes of one request.
const PIECE_BYTES: u64 = 8 << 20;
/// Chunks that the proof reads ahead.
const AHEAD: usize = 2;

/// Copy a snapshot, with all that it refers to, into a local folder, and prove the copy
#[derive(Debug, Args)]
#[command(after_help = "\
The folder has the store's own layout: `--store file:///FOLDER` reads it with every command of the store. It holds no \
cluster object, so no node takes it for its store.")]
pub(super) struct FetchArgs {
    /// The snapshot: its id or the beginning of it, its index, or `latest` [of config/0 without --group]
    #[arg(value_name = "ID")]
    snapshot: Wanted,
    /// The folder; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
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
    folder: String,
    objects: Vec<String>,
    bytes: u64,
    #[serde(flatten)]
    manifest: Summary,
}

/// One object on its way.
struct Copy {
    object: String,
    /// Where it goes.
    path: PathBuf,
    /// Where it lies until it is proven; none when it is there already.
    part: Option<tempfile::TempPath>,
}

pub(super) async fn run(args: &FetchArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let picked = store
        .pick(&args.snapshot, args.group.group.as_ref())
        .await?;
    let failed = |error: SnapshotError| errors::snapshot(&error);
    let reader = store.open(&picked.group, &picked.listed.id).await;
    let reader = reader.map_err(failed)?;
    let mut objects = vec![reader.object().to_owned()];
    let others = reader.manifest().referenced_objects();
    objects.extend(others.into_iter().map(str::to_owned));
    let bar = global.progress("bytes", 0);
    let mut copies = Vec::new();
    for object in &objects {
        copies.push(copy(&store, object, &args.to, &bar).await?);
    }
    bar.finish_and_clear();
    prove(&reader, &copies).await.map_err(|error| {
        errors::snapshot(&error)
            .with_hint("nothing was kept; `drtool snapshot verify --read-data` names what is damaged in the store")
    })?;
    let mut bytes = 0;
    for copy in copies {
        let local = |error: std::io::Error| codes::local("write", &copy.path, &error);
        if let Some(part) = copy.part {
            part.persist_noclobber(&copy.path)
                .map_err(|error| local(error.error))?;
            sync_folder(&copy.path).map_err(local)?;
        }
        bytes += std::fs::metadata(&copy.path).map_err(local)?.len();
    }
    let document = Document {
        store: store.url().to_owned(),
        folder: args.to.display().to_string(),
        objects,
        bytes,
        manifest: Summary::new(&reader),
    };
    if global.json {
        output::json(&document)?;
    } else {
        output::line(&format!(
            "{} {} is in {}: {} objects, {}, proven",
            document.manifest.group,
            document.manifest.id,
            document.folder,
            document.objects.len(),
            output::bytes(document.bytes)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings one object here, under no name yet. One that is there already is taken as it is, and proven with the others.
async fn copy(
    store: &StoreReader,
    object: &str,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<Copy, Failure> {
    let path = folder.join(object);
    let local = |error: std::io::Error| codes::local("write", &path, &error);
    if path.exists() {
        return Ok(Copy {
            object: object.to_owned(),
            path,
            part: None,
        });
    }
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(local)?;
    let mut part = tempfile::NamedTempFile::new_in(parent).map_err(local)?;
    let told = |error| errors::store(&error);
    let size = store.size(object).await.map_err(told)?;
    bar.inc_length(size);
    let mut offset = 0;
    while offset < size {
        let end = size.min(offset + PIECE_BYTES);
        let piece = store.read(object, offset..end).await.map_err(told)?;
        part.write_all(&piece).map_err(local)?;
        bar.inc(end - offset);
        offset = end;
    }
    part.as_file().sync_all().map_err(local)?;
    Ok(Copy {
        object: object.to_owned(),
        path,
        part: Some(part.into_temp_path()),
    })
}

/// Reads the copy back from the disk, to the end.
async fn prove(remote: &SnapshotReader, copies: &[Copy]) -> Result<(), SnapshotError> {
    let files = copies.iter().fold(LocalFiles::default(), |files, copy| {
        let lies = copy.part.as_deref().unwrap_or(&copy.path);
        files.with(copy.object.clone(), lies)
    });
    let local = SnapshotReader::open(Arc::new(files), remote.object()).await?;
    if local.manifest_blake3() != remote.manifest_blake3() {
        return Err(SnapshotError::Mismatch {
            object: remote.object().to_owned(),
            what: "manifest hash",
            found: local.manifest_blake3().to_string(),
            expected: remote.manifest_blake3().to_string(),
        });
    }
    let mut records = local.records(AHEAD);
    while records.next_chunk().await?.is_some() {}
    Ok(())
}

/// Makes a new name in a folder last.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
