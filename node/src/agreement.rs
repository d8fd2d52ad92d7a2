//! The leader's look at a snapshot record before it proposes it: the state hash in the record and this replica's own
//! hash at that position are the same, or nothing is proposed (I2).
//!
//! Without it the builder whose state went wrong records its own hash, and every sound replica stops at the record.
//! What this replica does not remember it cannot judge: replicas judge once more when they apply the record.

use confman_snapshot::Digest;
use confman_store::Remembered;
use confman_store::command::{Command, Op};

use crate::group::Group;

/// Two replicas had different states at one position. Which of them is wrong is not known here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "state hash mismatch in {group} at index {index}: node id {builder} built snapshot {snapshot} from {recorded}, the leader, node id {leader}, had {own}; it is not recorded\n\
     hint: compare the state hashes of all nodes at an equal index in `confman status --json`; stop the one that differs, run `drtool set-aside` on its data directory and let it rejoin empty"
)]
pub(crate) struct SnapshotDiffers {
    group: String,
    index: u64,
    snapshot: String,
    builder: u64,
    recorded: Digest,
    leader: u64,
    own: Remembered,
}

/// Whether this node may propose `command` in `group`; anything but a snapshot record it may.
pub(crate) async fn check(group: &Group, command: &Command) -> Result<(), SnapshotDiffers> {
    let Some(Op::SnapshotVerified(verified)) = &command.op else {
        return Ok(());
    };
    let Some(record) = &verified.record else {
        return Ok(());
    };
    if !group.is_leader() || record.check().is_err() {
        return Ok(());
    }
    let (state, index) = (group.state().clone(), record.position.index);
    // Waits while a batch is applied.
    let own = tokio::task::spawn_blocking(move || state.remembered_at(index)).await;
    let recorded = record.state_digest();
    match own {
        Ok(Some(own)) if !own.agrees(&recorded) => {
            let name = group.id().to_string();
            metrics::counter!("confman_state_hash_mismatches_total", "group" => name.clone())
                .increment(1);
            Err(SnapshotDiffers {
                group: name,
                index,
                snapshot: record.id.to_string(),
                builder: record.builder_node,
                recorded,
                leader: group.node_id(),
                own,
            })
        }
        _ => Ok(()),
    }
}
