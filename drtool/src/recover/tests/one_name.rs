//! node3 lost its disk and came back under id 4: one name, two ids, and either directory may be here.

use confman_snapshot::model::NodeInfo;

use super::kit::*;
use crate::recover::collection::Directory;
use crate::recover::decide::decide;

fn rename(info: &mut NodeInfo) {
    info.name = "node3".to_owned();
}

/// A directory of the four, in which id 4 is called node3.
fn knows_it(mut directory: Directory, voters: &[u64]) -> Directory {
    let identity = directory.identity.as_mut().unwrap();
    identity.members.get_mut(&4).map(rename);
    if identity.node_id == 4 {
        identity.name = "node3".to_owned();
    }
    let registered = directory.nodes.iter_mut().filter(|n| n.id == 4);
    registered.for_each(|n| rename(&mut n.info));
    for group in &mut directory.groups {
        for membership in &mut group.memberships {
            membership.nodes.get_mut(&4).map(rename);
            membership.voters = vec![voters.iter().copied().collect()];
        }
    }
    directory
}

#[test]
fn a_name_with_two_ids_is_given_up_for_the_one_that_is_missing() {
    // It is a learner still.
    let again = knows_it(node(4, 4, at(2, 9), at(2, 9)), &[1, 2, 3]);
    let seen = collection(vec![again]);
    let refusals = decide(&seen, &wishes(&["node1", "node2"])).unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0].code, "RECOVER_TOO_FEW");
    assert!(refusals[0].hint.contains("--lost node3"), "{}", refusals[0]);
    let plan = planned(&seen, &wishes(&["node1", "node2", "node3"]));
    assert_eq!(plan.survivor.old_id, 4);
    let lost: Vec<u64> = plan.lost.iter().map(|l| l.id).collect();
    assert_eq!(lost, [1, 2, 3]);
    // Where nothing of that name is missing, it is still not to be given up.
    let seen = collection(vec![node(1, 5, at(2, 9), at(2, 9))]);
    assert_eq!(
        refused(
            &seen,
            &wishes(&["node1", "node2", "node3", "node4", "node5"])
        ),
        ["RECOVER_NOT_LOST"]
    );
}

#[test]
fn of_two_directories_of_one_name_each_gives_what_is_its_own() {
    let all = [1, 2, 3, 4];
    let before = knows_it(node(3, 4, at(2, 7), at(2, 7)), &all);
    let after = knows_it(node(4, 4, at(2, 9), at(2, 9)), &all);
    let seen = collection(vec![before.clone(), after.clone()]);
    let lost = wishes(&["node1", "node2"]);
    let plan = planned(&seen, &lost);
    assert_eq!((plan.survivor.old_id, plan.others[0].id), (4, 3));
    assert!(plan.groups.iter().all(|g| g.from.id == 4), "{plan}");
    assert!(plan.others[0].gives.is_empty(), "{plan}");
    // By its name, too, it is the one that is ahead, in whatever order they were collected.
    for directories in [[&before, &after], [&after, &before]] {
        let seen = collection(directories.map(Clone::clone).to_vec());
        let mut named = lost.clone();
        named.survivor = Some("node3".to_owned());
        assert_eq!(planned(&seen, &named).survivor.old_id, 4);
    }
    // What the older one alone has it gives, and no more.
    let mut before = before;
    before.groups[1] = knows_it(node(3, 4, at(2, 12), at(2, 7)), &all).groups[1].clone();
    let plan = planned(&collection(vec![before, after]), &lost);
    let from: Vec<u64> = plan.groups.iter().map(|g| g.from.id).collect();
    assert_eq!((plan.survivor.old_id, from), (4, vec![4, 3]), "{plan}");
    assert_eq!(plan.others[0].gives, [plan.groups[1].group.clone()]);
    assert!(
        plan.to_string().contains("node3 (node id 3), entry 12"),
        "{plan}"
    );
}
