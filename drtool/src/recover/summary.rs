//! What was lost, as it goes into the audit history: JSON of at most 4096 bytes.

use confman_store::records::AUDIT_VALUE_MAX;
use serde_json::{Value, json};

use super::plan::{GroupPlan, Plan};

/// The summary of a plan. With very many groups, those of which nothing can be lost are only counted.
pub(super) fn of(plan: &Plan) -> String {
    let whole = build(plan, plan.groups.len());
    if whole.len() <= AUDIT_VALUE_MAX {
        return whole;
    }
    // Fewer and fewer groups are told one by one; the plan itself has them all.
    (0..plan.groups.len())
        .rev()
        .map(|told| build(plan, told))
        .find(|text| text.len() <= AUDIT_VALUE_MAX)
        .unwrap_or_else(|| json!({ "planId": plan.plan_id, "digest": plan.digest }).to_string())
}

fn build(plan: &Plan, told: usize) -> String {
    let groups: Vec<Value> = plan.groups.iter().take(told).map(group).collect();
    json!({
        "planId": plan.plan_id,
        "digest": plan.digest,
        "survivor": plan.survivor.info.name,
        "givenUp": plan.lost.iter().map(|l| &l.info.name).collect::<Vec<_>>(),
        "setAside": plan.others.iter().map(|o| &o.name).collect::<Vec<_>>(),
        "groups": groups,
        "groupsNotTold": plan.groups.len() - groups.len(),
    })
    .to_string()
}

fn group(plan: &GroupPlan) -> Value {
    let loss = &plan.loss;
    json!({
        "group": plan.group,
        "from": plan.from,
        "keptTo": plan.last.max(plan.applied),
        "provenTo": loss.proven.as_ref().map(|p| p.position.index),
        "keptUnproven": loss.kept_unproven,
        "lostProven": loss.lost_proven,
        "lostAtMost": loss.lost_at_most,
        "dropped": loss.dropped.iter().map(|d| json!({
            "node": d.node, "from": d.from, "to": d.to, "neverCommitted": d.never_committed,
        })).collect::<Vec<_>>(),
        "unknownFrom": loss.unknown.as_ref().map(|u| u.from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::kit;

    #[test]
    fn it_fits_into_the_audit_history_however_many_groups_there_are() {
        let seen = kit::collection(vec![kit::node(2, 3, kit::at(2, 9), kit::at(2, 7))]);
        let mut plan = kit::planned(&seen, &kit::wishes(&["node1", "node3"]));
        let small: Value = serde_json::from_str(&of(&plan)).unwrap();
        assert_eq!(small["groups"][1]["keptUnproven"], 2);
        assert_eq!(small["groupsNotTold"], 0);
        let one = plan.groups[1].clone();
        plan.groups.extend(vec![one; 500]);
        let text = of(&plan);
        assert!(text.len() <= AUDIT_VALUE_MAX);
        let large: Value = serde_json::from_str(&text).unwrap();
        assert!(large["groupsNotTold"].as_u64().unwrap() > 400);
        assert!(large["groups"].as_array().unwrap().len() > 5);
    }
}
