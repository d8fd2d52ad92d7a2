//! Values on their way to the cluster: batches of small ones, large ones one by one.
//!
//! Each write skips what is there already, so that a batch that is sent again changes nothing.

use std::sync::Arc;
use std::time::Duration;

use confman_client::wire::{BatchItemResult, ProblemKind, ValueType};
use confman_client::{ClientError, ErrorKind, PutOptions, PutValue, Upload};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Work;
use super::pack::{self, Packed, Packer};
use super::tally::Did;
use super::walk::{File, Skip};

/// A batch that is not full is sent when nothing more has come for this long.
const LINGER: Duration = Duration::from_millis(20);
/// How often the refused items of a batch are sent again, when trying again can help.
const ROUNDS_MAX: u32 = 8;
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Packs and sends small values until there are no more.
pub(super) async fn small(work: Arc<Work>, mut items: mpsc::Receiver<Packed>) {
    let places = Arc::new(Semaphore::new(work.concurrency));
    let mut packer = Packer::default();
    let mut sending = JoinSet::new();
    loop {
        let (batch, last) = match tokio::time::timeout(LINGER, items.recv()).await {
            Ok(Some(item)) => (packer.push(item), false),
            Ok(None) => (packer.take(), true),
            Err(_) => (packer.take(), false),
        };
        if let Some(batch) = batch {
            // Never closed, so there is always a place in the end.
            if let Ok(place) = places.clone().acquire_owned().await {
                let work = work.clone();
                sending.spawn(async move {
                    send_batch(&work, batch).await;
                    drop(place);
                });
            }
        }
        while sending.try_join_next().is_some() {}
        if last {
            break;
        }
    }
    while sending.join_next().await.is_some() {}
}

async fn send_batch(work: &Work, mut batch: Vec<Packed>) {
    for round in 1..=ROUNDS_MAX {
        if work.has_stopped() {
            return;
        }
        let results = match work.client.batch(&pack::request(&batch)).await {
            Ok(answered) => answered.value.items,
            Err(error) => return work.stop(error.into()),
        };
        let mut again = Vec::new();
        for (packed, result) in batch.into_iter().zip(results) {
            let retry = result
                .problem
                .as_ref()
                .and_then(|p| p.kind())
                .is_some_and(may_pass);
            if retry && round < ROUNDS_MAX {
                again.push(packed);
            } else {
                settle(work, packed, &result);
            }
        }
        if again.is_empty() {
            return;
        }
        batch = again;
        tokio::time::sleep(ROUND_PAUSE * round).await;
    }
}

fn settle(work: &Work, packed: Packed, result: &BatchItemResult) {
    match (&result.problem, result.status) {
        (Some(problem), _) => {
            work.skip(
                Skip::lost(
                    &packed.path,
                    &work.root,
                    format!("refused: {}", problem.detail),
                ),
                packed.bytes,
            );
        }
        (None, 201) => work.did(Did::Created, packed.bytes),
        (None, 200..=299) if result.unchanged => work.did(Did::Unchanged, packed.bytes),
        (None, 200..=299) => work.did(Did::Updated, packed.bytes),
        (None, status) => {
            work.skip(
                Skip::lost(
                    &packed.path,
                    &work.root,
                    format!("refused with status {status}"),
                ),
                packed.bytes,
            );
        }
    }
}

/// Trying again can help.
fn may_pass(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::NoLeader
            | ProblemKind::NotLeader
            | ProblemKind::Unavailable
            | ProblemKind::WriteTimeout
            | ProblemKind::ReadTimeout
    )
}

/// Sends a large value, from its file.
pub(super) async fn large(work: &Work, namespace: &str, file: &File, value_type: ValueType) {
    let Ok(_place) = work.large_places.acquire().await else {
        return;
    };
    if work.has_stopped() {
        return;
    }
    let lost = |why: String| Skip::lost(&file.path, &work.root, why);
    let upload = Upload::File {
        path: file.path.clone(),
        bytes: file.bytes,
    };
    let value = PutValue::Raw { upload, value_type };
    let options = PutOptions {
        skip_unchanged: true,
        ..PutOptions::default()
    };
    match work
        .client
        .put(namespace, &file.key, &value, &options)
        .await
    {
        Ok(answered) => {
            let did = match (answered.value.unchanged, answered.value.created) {
                (true, _) => Did::Unchanged,
                (false, true) => Did::Created,
                (false, false) => Did::Updated,
            };
            work.did(did, file.bytes);
        }
        Err(error @ ClientError::Upload { .. }) => work.skip(lost(error.to_string()), file.bytes),
        // About this one value: the others may pass.
        Err(error) if is_about_the_value(&error) => {
            work.skip(lost(format!("refused: {error}")), file.bytes)
        }
        Err(error) => work.stop(error.into()),
    }
}

fn is_about_the_value(error: &ClientError) -> bool {
    let too_large = error.problem().and_then(|p| p.kind()) == Some(ProblemKind::PayloadTooLarge);
    too_large || (error.problem().is_some() && error.kind() == ErrorKind::Usage)
}
