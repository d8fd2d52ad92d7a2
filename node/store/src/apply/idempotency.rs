//! A command with an idempotency key is applied once, and answers its retries as it did the first time.
//!
//! Bounded: the newest 10,000 commands of the last 24 hours of the group's own time are remembered.

use prost::Message;

use super::{Ctx, Tx};
use crate::command::{Answer, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::keys;
use crate::records::IdempotencyRecord;

/// How many commands are remembered.
pub(crate) const REMEMBERED_MAX: u64 = 10_000;
/// For how long, in microseconds of the group's time.
pub(crate) const REMEMBERED_US: i64 = 24 * 3600 * 1_000_000;
/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Records evicted with one command, at most; one is added with one command.
const EVICTED_MAX: usize = 16;

pub(super) fn once(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    apply: impl FnOnce(&mut Tx<'_>, &mut Ctx<'_>) -> Result<Outcome, StoreError>,
) -> Result<Outcome, StoreError> {
    let command = ctx.command;
    if command.idempotency_key.is_empty() {
        return apply(tx, ctx);
    }
    let bad = |text: &str| text.bytes().any(|b| b == 0);
    if command.idempotency_key.len() > KEY_BYTES_MAX
        || bad(&command.idempotency_key)
        || bad(&command.actor)
    {
        let detail =
            format!("the idempotency key has more than {KEY_BYTES_MAX} bytes or a zero byte");
        return Ok(Outcome::refused(RefusalCode::Invalid, detail));
    }
    let key = keys::idempotency(&command.actor, &command.idempotency_key);
    if let Some(first) = tx.get::<IdempotencyRecord>(&key)? {
        if first.fingerprint != command.fingerprint {
            let detail = "the idempotency key was used for another request";
            return Ok(Outcome::refused(RefusalCode::IdempotencyKeyReused, detail));
        }
        return Ok(Outcome {
            replayed_from: first.position,
            ..first.outcome.unwrap_or_default()
        });
    }
    let outcome = apply(tx, ctx)?;
    if is_final(&outcome) {
        let record = IdempotencyRecord {
            fingerprint: command.fingerprint.clone(),
            outcome: Some(outcome.clone()),
            position: Some(ctx.position),
            time_us: ctx.now_us,
        };
        tx.put_bytes(&keys::idempotency_order(ctx.position.index), &key)?;
        tx.put(&key, &record)?;
        tx.facts.idempotency_keys += 1;
    }
    Ok(outcome)
}

/// Whether a retry must get this answer: not when a retry can do better.
fn is_final(outcome: &Outcome) -> bool {
    match &outcome.answer {
        Some(Answer::NamespaceDeleted(deleted)) => !deleted.more,
        Some(Answer::Refused(refused)) => {
            matches!(
                refused.code(),
                RefusalCode::NotFound | RefusalCode::PreconditionFailed | RefusalCode::Conflict
            )
        }
        _ => true,
    }
}

pub(super) fn evict(tx: &mut Tx<'_>, now_us: i64) -> Result<(), StoreError> {
    for _ in 0..EVICTED_MAX {
        if tx.facts.idempotency_keys == 0 {
            return Ok(());
        }
        let Some((order, key)) = tx.first(&[keys::IDEMPOTENCY_ORDER], 1)?.pop() else {
            return Ok(());
        };
        let too_many = tx.facts.idempotency_keys > REMEMBERED_MAX;
        if !too_many {
            let time_us = match tx.bytes(&key)? {
                Some(bytes) => {
                    IdempotencyRecord::decode(bytes).map_or(i64::MIN, |record| record.time_us)
                }
                None => i64::MIN,
            };
            if time_us.saturating_add(REMEMBERED_US) > now_us {
                return Ok(());
            }
        }
        tx.delete(&order)?;
        tx.delete(&key)?;
        tx.facts.idempotency_keys -= 1;
    }
    Ok(())
}
