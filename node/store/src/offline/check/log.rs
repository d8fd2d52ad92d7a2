//! Whether the state was made from the log beside it: what both speak of must be the same.

use super::{Ctx, Looked, codes, keys};
use crate::offline::{OfflineGroup, OfflineState};
use crate::records::{AuditRecord, AuditRef};
use crate::wire::PayloadKind;

/// Compares the entries that were applied with what the state says of them; says how many there were.
pub(super) fn compare(group: &OfflineGroup, state: &OfflineState, ctx: &mut Ctx<'_>) -> u64 {
    let Some(applied) = ctx.applied else {
        return 0;
    };
    let (mut compared, mut membership) = (0, None);
    // What cannot be read was told when the log was read first.
    for (position, payload) in group.entries(..=applied.index).flatten() {
        compared += 1;
        let command = match payload.kind {
            Some(PayloadKind::Membership(_)) => {
                membership = Some(position);
                continue;
            }
            Some(PayloadKind::Command(command)) => command,
            _ => continue,
        };
        let at = AuditRef {
            index: position.index,
            sub: 0,
        };
        if let Looked::Found(event) = ctx.look::<AuditRecord>(&keys::audit(at)) {
            let wrote = (event.term, &event.actor, &event.request_id);
            if wrote != (position.term, &command.actor, &command.request_id) {
                let what = format!(
                    "entry {position} is {command}, the audit event of that index is of term {} by {:?}, request {:?}",
                    event.term, event.actor, event.request_id
                );
                ctx.error(codes::STATE_NOT_OF_LOG, what);
            }
        }
    }
    let said = state.membership().position;
    if let Some(membership) = membership
        && said != Some(membership)
    {
        let said = said.map_or_else(|| "none".to_owned(), |p| format!("entry {p}"));
        let what = format!(
            "the last applied change of members in the log is entry {membership}, the state has {said}"
        );
        ctx.error(codes::STATE_NOT_OF_LOG, what);
    }
    compared
}
