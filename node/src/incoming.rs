//! A snapshot that a leader offers to this replica: fetched from the store by reference, or received
//! as a stream when the store cannot give it. Nothing of it is applied before all of it is proven.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use confman_bootstrap::report::{self, RestoreReport, Source, Stage};
use confman_snapshot::source::LocalFiles;
use confman_snapshot::{ChunkSource, Repository, SnapshotReader, SnapshotRecord};
use confman_store::types::{Snapshot, SnapshotMeta, Vote};
use confman_store::{Incoming, SnapshotHandle};
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};

use crate::group::Group;
use crate::node::Node;
use crate::peer::{Refusal, proto};

/// Chunks read ahead while installing.
const PREFETCH: usize = 2;
/// Bytes of an object copied at a time.
const COPY_BYTES: u64 = 4 << 20;

/// What was received, ready to install.
pub(crate) struct Received {
    handle: SnapshotHandle,
    source: Source,
    id: String,
    began: Instant,
    /// Received files; removed when the installation has ended.
    files: Vec<tempfile::TempPath>,
}

/// Copies the recorded snapshot out of the store and proves it. An error tells the leader to stream
/// one instead.
///
/// Raft is deaf while it installs, and any error inside its state machine ends the node: what comes
/// from a store or a network is therefore complete and proven on this disk before Raft hears of it.
pub(crate) async fn by_reference(
    node: &Node,
    group: &Group,
    record: SnapshotRecord,
) -> Result<Received, Status> {
    let began = Instant::now();
    let refuse = |e: String| {
        tracing::warn!(group = %group.id(), snapshot = %record.id, "the offered snapshot cannot be had from the store: {e}");
        Refusal::StoreUnreachable.status(e)
    };
    let repository = node
        .store()
        .repository()
        .await
        .map_err(|e| refuse(e.to_string()))?;
    let reader = repository
        .open_recorded(&record)
        .await
        .map_err(|e| refuse(e.to_string()))?;
    let mut objects: BTreeSet<String> = reader
        .manifest()
        .referenced_objects()
        .into_iter()
        .map(str::to_owned)
        .collect();
    objects.insert(record.object.clone());
    let mut files = Vec::new();
    let mut local: Option<LocalFiles> = None;
    for object in objects {
        let path = temporary(node, group).map_err(|e| refuse(e.to_string()))?;
        copy(&repository, &object, &path).await.map_err(refuse)?;
        local = Some(match local {
            None => LocalFiles::one(object, path.to_path_buf()),
            Some(others) => others.with(object, path.to_path_buf()),
        });
        files.push(path);
    }
    let local = local.ok_or_else(|| refuse("a snapshot without objects".to_owned()))?;
    let reader = SnapshotReader::open(Arc::new(local), &record.object)
        .await
        .map_err(|e| refuse(e.to_string()))?;
    reader.expect(&record).map_err(|e| refuse(e.to_string()))?;
    prove(&reader).await.map_err(refuse)?;
    let incoming = Incoming::new(reader.records(PREFETCH), Some(record.clone()));
    Ok(Received {
        handle: SnapshotHandle::Incoming(incoming),
        source: Source::Store,
        id: record.id.to_string(),
        began,
        files,
    })
}

fn temporary(node: &Node, group: &Group) -> std::io::Result<tempfile::TempPath> {
    let name = format!("received-{:08x}.snap", rand::random::<u32>());
    tempfile::TempPath::try_from_path(node.paths().group(group.id()).tmp_file(&name))
}

/// Copies one object, a bounded piece at a time.
async fn copy(repository: &Repository, object: &str, path: &Path) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("copy {object} to {}: {e}", path.display());
    let size = repository.size(object).await.map_err(|e| told(&e))?;
    let mut file = tokio::fs::File::create(path).await.map_err(|e| told(&e))?;
    let mut at = 0;
    while at < size {
        let end = size.min(at + COPY_BYTES);
        let piece = repository
            .read(object, at..end)
            .await
            .map_err(|e| told(&e))?;
        file.write_all(&piece).await.map_err(|e| told(&e))?;
        at = end;
    }
    file.flush().await.map_err(|e| told(&e))
}

/// Reads it to its end: every chunk's sums, the counts, and the state hash.
async fn prove(reader: &SnapshotReader) -> Result<(), String> {
    let mut records = reader.records(PREFETCH);
    while records
        .next_chunk()
        .await
        .map_err(|e| e.to_string())?
        .is_some()
    {}
    Ok(())
}

/// Receives a snapshot file into the temporary directory.
pub(crate) async fn streamed(
    node: &Node,
    group: &Group,
    id: &str,
    bytes: u64,
    mut parts: Streaming<proto::SnapshotMessage>,
) -> Result<Received, Status> {
    let began = Instant::now();
    let failed = |e: &dyn std::fmt::Display| Status::internal(format!("receive snapshot: {e}"));
    let path = temporary(node, group).map_err(|e| failed(&e))?;
    let mut file = tokio::fs::File::create(&path)
        .await
        .map_err(|e| failed(&e))?;
    let mut received = 0u64;
    while let Some(message) = parts.message().await? {
        let Some(proto::snapshot_message::Part::Piece(piece)) = message.part else {
            return Err(Status::invalid_argument("a snapshot with two heads"));
        };
        received += piece.len() as u64;
        if received > bytes {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {bytes} bytes goes on after its end"
            )));
        }
        file.write_all(&piece).await.map_err(|e| failed(&e))?;
    }
    if received != bytes {
        return Err(Status::data_loss(format!(
            "a snapshot of {bytes} bytes ended after {received}"
        )));
    }
    file.flush().await.map_err(|e| failed(&e))?;
    drop(file);
    let object = "received";
    let source = Arc::new(LocalFiles::one(object, path.to_path_buf()));
    let reader = SnapshotReader::open(source, object)
        .await
        .map_err(|e| failed(&e))?;
    if reader.manifest().group != *group.id() {
        return Err(Status::invalid_argument(format!(
            "a snapshot of {}",
            reader.manifest().group
        )));
    }
    prove(&reader).await.map_err(|e| failed(&e))?;
    let incoming = Incoming::new(reader.records(PREFETCH), None);
    Ok(Received {
        handle: SnapshotHandle::Incoming(incoming),
        source: Source::Peer,
        id: id.to_owned(),
        began,
        files: vec![path],
    })
}

/// Hands it to Raft, which installs it unless it is older than what is here. Answers Raft's vote.
pub(crate) async fn install(
    node: &Node,
    group: &Group,
    vote: Vote,
    meta: SnapshotMeta,
    received: Received,
) -> Result<Vote, Status> {
    let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
    let before = *group.state().applied_watch().borrow();
    let snapshot = Snapshot {
        meta,
        snapshot: received.handle,
    };
    let (raft, files) = (group.raft().clone(), received.files);
    // The call may end before the installation does (the leader died): the files must not.
    let installed = tokio::spawn(async move {
        let response = raft.install_full_snapshot(vote, snapshot).await;
        drop(files);
        response
    });
    let response = installed
        .await
        .map_err(|e| Status::internal(e.to_string()))?
        .map_err(|e| Status::unavailable(crate::group::fatal_text(&e)))?;
    let after = *group.state().applied_watch().borrow();
    if before < index && after >= index {
        let stats = group.state().stats();
        let now_us = crate::clock::wall_us();
        let took_us = u64::try_from(received.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let report = RestoreReport {
            group: group.id().to_string(),
            cluster_uuid: node.cluster().uuid.clone(),
            incarnation: node.cluster().incarnation,
            source: received.source.into(),
            stage: Stage::Installed.into(),
            snapshot: Some(received.id),
            snapshot_index: Some(index),
            state_hash: stats.state_hash.to_string(),
            started_us: now_us - i64::try_from(took_us).unwrap_or(0),
            took_us,
            ..node.restore_report(group.id()).unwrap_or_default()
        };
        tracing::info!(
            group = %group.id(), source = received.source.name(), snapshot = report.snapshot.as_deref(), index,
            seconds = report.seconds(), "state installed from a snapshot"
        );
        if let Err(error) = report::write(&node.paths().group(group.id()), &report) {
            tracing::warn!(group = %group.id(), "keep the account of the restore: {error}");
        }
        node.note_restore(group.id(), report);
    }
    Ok(response.vote)
}
