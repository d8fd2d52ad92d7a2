//! A command with an idempotency key is applied once, and answers its retries as it did the first time.
//!
//! A key is remembered for [`IDEMPOTENCY_KEPT`] of the group's own time whatever the load, which is longer than a write may be under
//! way and be sent again; the newest [`KEPT_AT_REST`] stay for [`REMEMBERED_US`]. Beyond [`REMEMBERED_MAX`] the oldest go
//! however young they are: that bounds what a burst leaves in the state and in the snapshots.

use std::time::Duration;

use prost::Message;

use super::{Ctx, Tx};
use crate::command::{Answer, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::keys;
use crate::records::IdempotencyRecord;

/// How long a command with an idempotency key is remembered however many come after it, by the group's time: longer than any client
/// of ours sends it again, and the last of these may wait at a node for the longest write timeout that can be set.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(25 * 60);
const KEPT_US: i64 = IDEMPOTENCY_KEPT.as_micros() as i64;
/// How many commands are remembered for longer than that.
pub(crate) const KEPT_AT_REST: u64 = 10_000;
/// And for how long, in microseconds of the group's time.
pub(crate) const REMEMBERED_US: i64 = 24 * 3600 * 1_000_000;
/// How many are remembered at most: 25 minutes of 660 writes a second.
pub(crate) const REMEMBERED_MAX: u64 = 1_000_000;
/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Records evicted with one command, at most; one is added with one command. What a burst left goes with the writes after it.
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
        let time_us = match tx.bytes(&key)? {
            Some(bytes) => {
                IdempotencyRecord::decode(bytes).map_or(i64::MIN, |record| record.time_us)
            }
            None => i64::MIN,
        };
        if !is_forgotten(tx.facts.idempotency_keys, now_us.saturating_sub(time_us)) {
            return Ok(());
        }
        tx.delete(&order)?;
        tx.delete(&key)?;
        tx.facts.idempotency_keys -= 1;
    }
    Ok(())
}

/// Whether the oldest of `count` remembered commands goes at this age.
fn is_forgotten(count: u64, age_us: i64) -> bool {
    let kept_us = match count {
        0..=KEPT_AT_REST => REMEMBERED_US,
        _ if count <= REMEMBERED_MAX => KEPT_US,
        _ => 0,
    };
    age_us >= kept_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_forgotten_by_its_age_and_by_how_many_came_after_it() {
        let cases = [
            (1, REMEMBERED_US - 1, false),
            (1, REMEMBERED_US, true),
            (KEPT_AT_REST, KEPT_US, false),
            (KEPT_AT_REST + 1, KEPT_US - 1, false),
            (KEPT_AT_REST + 1, KEPT_US, true),
            (REMEMBERED_MAX, KEPT_US - 1, false),
            (REMEMBERED_MAX + 1, 0, true),
        ];
        for (count, age_us, forgotten) in cases {
            assert_eq!(is_forgotten(count, age_us), forgotten, "{count} {age_us}");
        }
    }
}
