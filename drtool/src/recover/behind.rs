//! Why a group may not go on from a directory: entries are proven to be committed that no directory has. Pure.
//!
//! The store has snapshots and not the log between them, so nothing there follows on the end of a directory. What is left are two ways
//! that are whole: every group from the snapshots, or every group from the directories. Each has its price, and it is told before one
//! is chosen.

use confman_snapshot::model::GroupId;

use super::loss::{Evidence, Witness};
use super::plan::{Loss, counted};
use super::refusal::Refusal;
use super::survey::{Candidate, Survey, holds};

/// The best directory of a group lacks what is proven.
pub(super) fn refusal(
    survey: &Survey<'_>,
    best: Candidate<'_>,
    group: &GroupId,
    evidence: &Evidence,
    loss: &Loss,
) -> Refusal {
    let name = best.name();
    let end = best.end(group).map_or_else(
        || "has nothing of it".to_owned(),
        |end| format!("ends at entry {end}"),
    );
    let missing = if loss.lost_at_most {
        format!(
            "up to {} are missing there, and its own last {} may be others than those that were committed",
            counted(loss.lost_proven),
            counted(loss.kept_unproven)
        )
    } else {
        format!("it lacks {}", counted(loss.lost_proven))
    };
    let proof = &evidence.proof;
    let what = format!(
        "{group}: entry {} is committed ({}), and the best directory, {name}, {end}: {missing}",
        proof.position, proof.by
    );
    let give_up = format!("go on from the directories without them: --accept-data-loss {group}");
    let hint = match evidence.witness {
        Witness::Snapshot => format!(
            "the store has no log that could follow on a directory. Either {}; or {give_up}",
            from_snapshots(survey)
        ),
        Witness::Told | Witness::Directory => format!(
            "who says so has them: stop it, collect its directory too and plan again. If it is lost for good, {give_up}"
        ),
    };
    Refusal::new("RECOVER_BEHIND", what, hint)
}

/// What it takes and costs to go on from the store instead.
fn from_snapshots(survey: &Survey<'_>) -> String {
    let mut without = Vec::new();
    let mut price = Vec::new();
    for group in survey.groups() {
        let Some(snapshot) = survey.snapshot(&group) else {
            without.push(group.to_string());
            continue;
        };
        let best = survey.best(&group);
        let Some((best, facts)) = best.and_then(|best| Some((best, best.group(&group)?))) else {
            continue;
        };
        let index = snapshot.position.index;
        let later = facts.end().map_or(0, |end| end.index.saturating_sub(index));
        // Where it is not on the way of that log, the snapshot is the later one.
        if later > 0 && holds(facts, snapshot.position) {
            price.push(format!(
                "{} of {group} after entry {index} that {} has",
                counted(later),
                best.name()
            ));
        }
    }
    if !without.is_empty() {
        return format!(
            "see with `drtool restore plan` what can be restored: no snapshot of {} was found that can be opened",
            without.join(", ")
        );
    }
    let price = if price.is_empty() {
        "nothing of these directories that can have been committed".to_owned()
    } else {
        price.join(", ")
    };
    format!(
        "restore all groups from their snapshots, `drtool restore plan`, which gives up {price}"
    )
}
