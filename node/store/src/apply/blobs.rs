//! Values in parts: staged through the log, committed by a put, removed a piece at a time once nobody reads them.
//!
//! The garbage queue is ordered by the time when something is due: an upload is looked at when it may have been
//! abandoned, a replaced value when its readers have had a minute. Every command removes a bounded piece of what is
//! due, so that no entry takes long to apply.

use prost::Message;

use super::{Ctx, Tx};
use crate::command::{
    Answer, Content, Outcome, PART_BYTES, PartStaged, Put, RefusalCode, StagePart, Staged,
    VALUE_BYTES_MAX,
};
use crate::error::StoreError;
use crate::keys::{self, UPLOAD_ID_BYTES};
use crate::records::{BlobRef, GarbageRecord, UploadRecord};

/// How long readers of a replaced value may go on, in microseconds of the group's time.
pub(crate) const READERS_US: i64 = 60 * 1_000_000;
/// When an upload that got no more parts is given up, in microseconds of the group's time.
pub(crate) const ABANDONED_US: i64 = 3600 * 1_000_000;
/// Parts removed with one command, at most.
pub(crate) const PARTS_REMOVED_MAX: u32 = 8;
/// Things in the queue looked at with one command, at most.
const QUEUE_LOOKS_MAX: usize = 8;

pub(super) fn stage(
    tx: &mut Tx<'_>,
    ctx: &Ctx<'_>,
    part: &StagePart,
) -> Result<Outcome, StoreError> {
    let refuse = |code, detail: String| Ok(Outcome::refused(code, detail));
    if part.upload_id.len() != UPLOAD_ID_BYTES {
        return refuse(
            RefusalCode::Invalid,
            format!("an upload id has {UPLOAD_ID_BYTES} bytes"),
        );
    }
    if part.bytes.is_empty() || part.bytes.len() > PART_BYTES {
        return refuse(
            RefusalCode::Invalid,
            format!("a part has 1 to {PART_BYTES} bytes"),
        );
    }
    let key = keys::upload(&part.upload_id);
    let part_key = keys::part(&part.upload_id, part.seq);
    let known: Option<UploadRecord> = tx.get(&key)?;
    if known.is_none() && tx.has(&keys::part(&part.upload_id, 0))? {
        return refuse(
            RefusalCode::Invalid,
            "the upload id was used before".to_owned(),
        );
    }
    let mut upload = known.clone().unwrap_or_default();
    if part.seq < upload.parts {
        // The same part again, after an answer that was lost.
        return match tx.bytes(&part_key)? {
            Some(bytes) if bytes == part.bytes => Ok(staged(&upload)),
            _ => refuse(
                RefusalCode::Invalid,
                format!("part {} came before with other bytes", part.seq),
            ),
        };
    }
    if part.seq > upload.parts {
        return refuse(
            RefusalCode::StageMissing,
            format!("part {} is missing", upload.parts),
        );
    }
    if upload.bytes != u64::from(upload.parts) * PART_BYTES as u64 {
        return refuse(
            RefusalCode::Invalid,
            format!(
                "part {} was short and so the last",
                upload.parts.saturating_sub(1)
            ),
        );
    }
    if upload.bytes + part.bytes.len() as u64 > VALUE_BYTES_MAX {
        return refuse(
            RefusalCode::TooLarge,
            format!("a value has at most {VALUE_BYTES_MAX} bytes"),
        );
    }
    if known.is_none() {
        upload.due_us = ctx.now_us.saturating_add(ABANDONED_US);
        tx.put(
            &keys::garbage(upload.due_us, &part.upload_id),
            &GarbageRecord {
                staged: true,
                ..Default::default()
            },
        )?;
    }
    upload.parts += 1;
    upload.bytes += part.bytes.len() as u64;
    upload.last_us = ctx.now_us;
    tx.put_bytes(&part_key, &part.bytes)?;
    tx.put(&key, &upload)?;
    Ok(staged(&upload))
}

fn staged(upload: &UploadRecord) -> Outcome {
    Outcome::new(Answer::Staged(PartStaged {
        bytes: upload.bytes,
    }))
}

/// What a put would commit, or why it cannot. Changes nothing.
pub(super) fn find_staged(
    tx: &Tx<'_>,
    staged: &Staged,
) -> Result<Result<BlobRef, Outcome>, StoreError> {
    let refuse = |code, detail: String| Ok(Err(Outcome::refused(code, detail)));
    if staged.upload_id.len() != UPLOAD_ID_BYTES || staged.hash.len() != 32 {
        return refuse(
            RefusalCode::Invalid,
            "a staged value has an upload id of 16 bytes and a hash of 32".to_owned(),
        );
    }
    match tx.get::<UploadRecord>(&keys::upload(&staged.upload_id))? {
        None => refuse(
            RefusalCode::StageMissing,
            "nothing is staged under this upload id".to_owned(),
        ),
        Some(upload) if upload.bytes != staged.size => refuse(
            RefusalCode::StageMissing,
            format!("{} of {} bytes are staged", upload.bytes, staged.size),
        ),
        Some(upload) => Ok(Ok(BlobRef {
            id: staged.upload_id.clone(),
            parts: upload.parts,
            size: upload.bytes,
        })),
    }
}

/// The parts of an upload belong to an entry from now on.
pub(super) fn commit_staged(tx: &mut Tx<'_>, blob: &BlobRef) -> Result<(), StoreError> {
    forget_upload(tx, &blob.id).map(drop)
}

fn forget_upload(tx: &mut Tx<'_>, id: &[u8]) -> Result<Option<UploadRecord>, StoreError> {
    let key = keys::upload(id);
    let upload: Option<UploadRecord> = tx.get(&key)?;
    if let Some(upload) = &upload {
        tx.delete(&key)?;
        tx.delete(&keys::garbage(upload.due_us, id))?;
    }
    Ok(upload)
}

/// Gives the parts of a put up that did not commit them; nothing to do when it did.
pub(super) fn discard_upload(tx: &mut Tx<'_>, ctx: &Ctx<'_>, put: &Put) -> Result<(), StoreError> {
    let Some(Content::Staged(staged)) = &put.content else {
        return Ok(());
    };
    if let Some(upload) = forget_upload(tx, &staged.upload_id)? {
        queue(tx, ctx.now_us, &staged.upload_id, upload.parts)?;
    }
    Ok(())
}

/// Has a value removed that an entry no longer refers to, once its readers are done.
pub(super) fn release(tx: &mut Tx<'_>, ctx: &Ctx<'_>, blob: &BlobRef) -> Result<(), StoreError> {
    queue(
        tx,
        ctx.now_us.saturating_add(READERS_US),
        &blob.id,
        blob.parts,
    )
}

fn queue(tx: &mut Tx<'_>, due_us: i64, id: &[u8], parts: u32) -> Result<(), StoreError> {
    tx.put(
        &keys::garbage(due_us, id),
        &GarbageRecord {
            parts,
            removed: 0,
            staged: false,
        },
    )
}

pub(super) fn collect_garbage(tx: &mut Tx<'_>, now_us: i64) -> Result<(), StoreError> {
    let mut budget = PARTS_REMOVED_MAX;
    for _ in 0..QUEUE_LOOKS_MAX {
        let Some((key, bytes)) = tx.first(&[keys::GARBAGE], 1)?.pop() else {
            return Ok(());
        };
        let Some((due_us, id)) = keys::parse_garbage(&key) else {
            return Ok(());
        };
        if due_us > now_us || budget == 0 {
            return Ok(());
        }
        let mut item = GarbageRecord::decode(bytes).unwrap_or_default();
        if item.staged && !give_up_upload(tx, now_us, &key, id, &mut item)? {
            continue;
        }
        let removed = budget.min(item.parts - item.removed.min(item.parts));
        for part in item.removed..item.removed + removed {
            tx.delete(&keys::part(id, part))?;
        }
        item.removed += removed;
        budget -= removed;
        if item.removed >= item.parts {
            tx.delete(&key)?;
        } else {
            tx.put(&key, &item)?;
        }
    }
    Ok(())
}

/// Whether an upload that was due is really abandoned; one that still grows is looked at again later.
fn give_up_upload(
    tx: &mut Tx<'_>,
    now_us: i64,
    key: &[u8],
    id: &[u8],
    item: &mut GarbageRecord,
) -> Result<bool, StoreError> {
    let upload_key = keys::upload(id);
    let Some(mut upload) = tx.get::<UploadRecord>(&upload_key)? else {
        tx.delete(key)?;
        return Ok(false);
    };
    let due_us = upload.last_us.saturating_add(ABANDONED_US);
    if due_us > now_us {
        tx.delete(key)?;
        upload.due_us = due_us;
        tx.put(&upload_key, &upload)?;
        tx.put(&keys::garbage(due_us, id), item)?;
        return Ok(false);
    }
    tx.delete(&upload_key)?;
    *item = GarbageRecord {
        parts: upload.parts,
        removed: 0,
        staged: false,
    };
    Ok(true)
}
