//! The audit history: in the order of the log, each change naming the one before it of the same key; and what is
//! remembered of idempotency keys.

use bytes::Bytes;

use super::registry::Registry;
use super::{Ctx, Looked, codes, keys};
use crate::records::{AuditRecord, AuditRef, IdempotencyRecord};

/// Audit events, in order.
#[derive(Default)]
pub(super) struct History {
    last: Option<(AuditRef, u64, i64)>,
    /// Events that have a place in the index of a namespace.
    to_index: u64,
    indexed: u64,
}

impl History {
    pub(super) fn take(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some(at) = keys::parse_audit(key) else {
            return ctx.damaged(key, "it has no place");
        };
        let Some(event) = ctx.decode::<AuditRecord>(key, value) else {
            return;
        };
        if let Some(wrong) = self.out_of_order(ctx, at, &event) {
            broken(ctx, at, wrong);
        }
        self.last = Some((at, event.term, event.time_us));
        if !event.namespace.is_empty() {
            self.to_index += 1;
            if !ctx.has(&keys::audit_by_namespace(&event.namespace, at)) {
                broken(ctx, at, "it is not in the index of its namespace");
            }
        }
        if matches!(event.action.as_str(), "put" | "delete")
            && let Some(wrong) = breaks_chain(ctx, at, &event)
        {
            broken(ctx, at, wrong);
        }
    }

    fn out_of_order(
        &self,
        ctx: &Ctx<'_>,
        at: AuditRef,
        event: &AuditRecord,
    ) -> Option<&'static str> {
        if ctx.applied.is_none_or(|applied| at.index > applied.index) {
            return Some("it is later than the state");
        }
        let expected_sub = match self.last {
            Some((last, ..)) if last.index == at.index => last.sub.saturating_add(1),
            _ => 0,
        };
        if at.sub != expected_sub {
            return Some("the one before it of the same entry is missing");
        }
        let (_, term, time_us) = self.last?;
        if event.term < term {
            return Some("its term is lower than that of the one before it");
        }
        (event.time_us < time_us).then_some("it is earlier than the one before it")
    }

    pub(super) fn indexed(&mut self, ctx: &mut Ctx<'_>, key: &[u8]) {
        self.indexed += 1;
        let Some(at) = keys::parse_audit_by_namespace(key) else {
            return ctx.damaged(key, "it has no place");
        };
        if !ctx.has(&keys::audit(at)) {
            broken(ctx, at, "it is in the index of a namespace and not there");
        }
    }

    pub(super) fn end(self, ctx: &mut Ctx<'_>) {
        if self.to_index != self.indexed {
            ctx.error(
                codes::AUDIT_BROKEN,
                format!(
                    "{} audit events are about a namespace, the index has {}",
                    self.to_index, self.indexed
                ),
            );
        }
    }
}

fn broken(ctx: &mut Ctx<'_>, at: AuditRef, what: &str) {
    let what = format!("audit event {}.{}: {what}", at.index, at.sub);
    ctx.error(codes::AUDIT_BROKEN, what);
}

/// What is wrong between a change of a key and the one before it.
fn breaks_chain(ctx: &Ctx<'_>, at: AuditRef, event: &AuditRecord) -> Option<&'static str> {
    let is_put = event.action == "put";
    let Some(before) = event.previous else {
        return (!is_put || event.version != 1 || !event.old_hash.is_empty())
            .then_some("it names no change before it, and is not the first of its key");
    };
    if before >= at {
        return Some("it names a later event as the one before it");
    }
    let previous: AuditRecord = match ctx.look(&keys::audit(before)) {
        Looked::Found(previous) => previous,
        Looked::Missing => return Some("the change before it is missing"),
        Looked::Unreadable => return None,
    };
    if (&previous.namespace, &previous.key) != (&event.namespace, &event.key) {
        return Some("the change before it is of another key");
    }
    let version = previous.version.checked_add(u64::from(is_put));
    if version != Some(event.version) {
        return Some("a version is missing between it and the change before it");
    }
    (previous.new_hash != event.old_hash)
        .then_some("its old value is not the new one of the change before it")
}

/// Idempotency keys, and the order in which they are forgotten.
#[derive(Default)]
pub(super) struct Remembered {
    keys: u64,
    order: u64,
}

impl Remembered {
    pub(super) fn take(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        self.keys += 1;
        let Some(record) = ctx.decode::<IdempotencyRecord>(key, value) else {
            return;
        };
        let Some(position) = record.position else {
            return ctx.damaged(key, "it has no position");
        };
        if !ctx.has(&keys::idempotency_order(position.index)) {
            let what = format!("{} is never forgotten", keys::describe(key));
            ctx.error(codes::RECORDS_DISAGREE, what);
        }
    }

    pub(super) fn order(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: &[u8]) {
        self.order += 1;
        if !ctx.has(value) {
            let what = format!(
                "{} names {}, which is not there",
                keys::describe(key),
                keys::describe(value)
            );
            ctx.error(codes::RECORDS_DISAGREE, what);
        }
    }

    pub(super) fn end(self, ctx: &mut Ctx<'_>, registry: &Registry) {
        let said = registry
            .facts_found()
            .map_or(0, |facts| facts.idempotency_keys);
        if self.keys != said || self.order != said {
            ctx.error(
                codes::RECORDS_DISAGREE,
                format!(
                    "the state says {said} idempotency keys, there are {} and {} in their order",
                    self.keys, self.order
                ),
            );
        }
    }
}
