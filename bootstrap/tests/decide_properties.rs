//! Promises of the decision table over every combination of facts, drawn at random and enumerated in part.

use confman_bootstrap::facts::{
    LocalData, LocalFacts, LocalIdentity, OrderFact, OrderState, PeerAnswer, PeerFact, PeerFacts,
    Stage, StoreFacts,
};
use confman_bootstrap::{Decision, decide};
use confman_snapshot::model::ClusterId;
use proptest::prelude::*;

fn cluster() -> impl Strategy<Value = ClusterId> {
    (prop_oneof![4 => Just("red"), 1 => Just("blue")], 1u64..4)
        .prop_map(|(uuid, incarnation)| ClusterId::new(uuid, incarnation))
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Forming),
        Just(Stage::Rejoining),
        Just(Stage::Restoring {
            plan: "plan-a".to_owned()
        }),
        Just(Stage::Complete),
        Just(Stage::Fenced {
            reason: "met incarnation 9".to_owned()
        }),
    ]
}

fn local() -> impl Strategy<Value = LocalFacts> {
    let good = (
        cluster(),
        1u64..5,
        prop_oneof![5 => Just("node1"), 1 => Just("node9")],
        stage(),
    )
        .prop_map(|(cluster, node_id, name, stage)| {
            LocalData::Good(LocalIdentity {
                cluster,
                node_id,
                name: name.to_owned(),
                stage,
            })
        });
    prop_oneof![
        4 => Just(LocalData::Empty),
        8 => good,
        1 => Just(LocalData::Damaged { finding: "a bit is wrong".to_owned() }),
    ]
    .prop_map(|data| LocalFacts {
        name: "node1".to_owned(),
        data,
    })
}

fn answer() -> impl Strategy<Value = PeerAnswer> {
    prop_oneof![
        Just(PeerAnswer::Silent {
            why: "timed out".to_owned()
        }),
        Just(PeerAnswer::Empty),
        cluster().prop_map(|cluster| PeerAnswer::Forming { cluster }),
        cluster().prop_map(|cluster| PeerAnswer::Fenced { cluster }),
        (cluster(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(cluster, leads, you_are_retired)| PeerAnswer::Member {
                cluster,
                leader: leads.then(|| "node2".to_owned()),
                you_are_retired,
            }
        ),
    ]
}

fn peers() -> impl Strategy<Value = PeerFacts> {
    prop_oneof![
        3 => prop::collection::vec(answer(), 0..5),
        1 => prop::collection::vec(Just(PeerAnswer::Empty), 0..5),
    ]
    .prop_map(|answers| PeerFacts {
        peers: answers
            .into_iter()
            .enumerate()
            .map(|(i, answer)| PeerFact {
                name: format!("node{}", i + 2),
                answer,
            })
            .collect(),
    })
}

fn store() -> impl Strategy<Value = StoreFacts> {
    prop_oneof![
        1 => Just(StoreFacts::Off),
        1 => Just(StoreFacts::Unreachable { why: "timed out".to_owned() }),
        3 => (prop::collection::vec(cluster(), 0..4), order()).prop_map(|(clusters, order)| {
            // An order lies in the object of the newest life of a cluster.
            let order = order.and_then(|order: OrderFact| {
                let life = clusters.iter().max_by_key(|c| c.incarnation)?.clone();
                Some(OrderFact { life, ..order })
            });
            StoreFacts::Reached { clusters, order }
        }),
    ]
}

fn order() -> impl Strategy<Value = Option<OrderFact>> {
    let state = prop_oneof![
        4 => Just(OrderState::Open),
        1 => Just(OrderState::Spent),
        1 => Just(OrderState::Unusable { why: "version 2".to_owned() }),
    ];
    let plan = prop_oneof![3 => Just("plan-a"), 1 => Just("plan-b")];
    let fact = (state, plan, prop::option::of(1u64..5), any::<bool>()).prop_map(
        |(state, plan, member, taken)| OrderFact {
            life: ClusterId::new("red", 1),
            plan: plan.to_owned(),
            state,
            member,
            taken,
            names: vec!["node1".to_owned()],
        },
    );
    prop::option::of(fact)
}

fn identity_of(local: &LocalFacts) -> Option<&LocalIdentity> {
    match &local.data {
        LocalData::Good(identity) => Some(identity),
        LocalData::Empty | LocalData::Damaged { .. } => None,
    }
}

fn cluster_of(answer: &PeerAnswer) -> Option<&ClusterId> {
    match answer {
        PeerAnswer::Forming { cluster }
        | PeerAnswer::Fenced { cluster }
        | PeerAnswer::Member { cluster, .. } => Some(cluster),
        PeerAnswer::Silent { .. } | PeerAnswer::Empty => None,
    }
}

fn has_data(answer: &PeerAnswer) -> bool {
    matches!(
        answer,
        PeerAnswer::Member { .. } | PeerAnswer::Fenced { .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Every combination gives one decision with a reason, the same one each time, and what stops the node
    /// says what an operator can do.
    #[test]
    fn every_combination_of_facts_is_decided(local in local(), peers in peers(), store in store()) {
        let verdict = decide(&local, &peers, &store);
        prop_assert!(!verdict.reason.is_empty());
        prop_assert_eq!(&verdict, &decide(&local, &peers, &store));
        let stops = matches!(verdict.decision,
            Decision::Fence { .. } | Decision::Wait { .. } | Decision::Refuse { .. });
        prop_assert_eq!(stops, verdict.decision.hint().is_some_and(|hint| !hint.is_empty()));
    }

    /// The order in which peers and clusters are named changes nothing that is done.
    #[test]
    fn the_order_of_the_facts_does_not_matter(local in local(), peers in peers(), store in store()) {
        let mut turned_peers = peers.clone();
        turned_peers.peers.reverse();
        let turned_store = match store.clone() {
            StoreFacts::Reached { mut clusters, order } => {
                clusters.reverse();
                StoreFacts::Reached { clusters, order }
            }
            other => other,
        };
        let one = decide(&local, &peers, &store).decision;
        let other = decide(&local, &turned_peers, &turned_store).decision;
        match (one, other) {
            (Decision::Refuse { .. }, Decision::Refuse { .. }) => {}
            (Decision::Wait { .. }, Decision::Wait { .. }) => {}
            (one, other) => prop_assert_eq!(one, other),
        }
    }

    /// A directory that holds data is never formed over and never joined over: whatever the others say, a
    /// node with an identity starts, fences, waits, refuses, or goes on under the identity it has.
    #[test]
    fn i14_a_directory_with_data_never_becomes_another_node(
        local in local(), peers in peers(), store in store()
    ) {
        let Some(identity) = identity_of(&local) else { return Ok(()) };
        match decide(&local, &peers, &store).decision {
            Decision::Form { resume, .. } => {
                prop_assert_eq!(resume.as_ref(), Some(&identity.cluster));
                prop_assert_eq!(&identity.stage, &Stage::Forming);
            }
            Decision::Rejoin { cluster, resume, .. } => {
                prop_assert_eq!(&cluster, &identity.cluster);
                prop_assert_eq!(resume, Some(identity.node_id));
                prop_assert_eq!(&identity.stage, &Stage::Rejoining);
            }
            Decision::Start => {
                let started = matches!(identity.stage, Stage::Complete | Stage::Forming);
                prop_assert!(started, "{:?}", identity.stage);
            }
            // Of a node that never started: it cast no vote.
            Decision::Restore { life, plan, node_id } => {
                prop_assert_eq!(&life, &identity.cluster);
                prop_assert_eq!(node_id, identity.node_id);
                prop_assert_eq!(&identity.stage, &Stage::Restoring { plan });
            }
            Decision::SetAside => {
                prop_assert!(matches!(identity.stage, Stage::Restoring { .. }), "{:?}", identity.stage);
            }
            Decision::Fence { .. } | Decision::Wait { .. } | Decision::Refuse { .. } => {}
        }
    }

    /// A node without its disk is a new node: an empty directory is never simply started, and a rejoin from
    /// it always asks for a new id.
    #[test]
    fn i14_a_node_without_its_disk_asks_for_a_new_id(peers in peers(), store in store()) {
        let local = LocalFacts { name: "node1".to_owned(), data: LocalData::Empty };
        match decide(&local, &peers, &store).decision {
            Decision::Rejoin { resume, .. } => prop_assert_eq!(resume, None),
            Decision::Start | Decision::Fence { .. } | Decision::SetAside => {
                prop_assert!(false, "started from nothing");
            }
            // The one id that it may take without asking is one that nobody has taken up, by an order that is not spent.
            Decision::Restore { life, node_id, .. } => {
                let StoreFacts::Reached { clusters, order: Some(order) } = &store else {
                    return Err(TestCaseError::fail("restored without an order"));
                };
                prop_assert_eq!(&order.state, &OrderState::Open);
                prop_assert!(!order.taken);
                prop_assert_eq!(order.member, Some(node_id));
                prop_assert_eq!(&order.life, &life);
                let newer = clusters.iter().find(|c| c.uuid == life.uuid && c.incarnation > life.incarnation);
                prop_assert_eq!(newer, None);
            }
            Decision::Form { .. } | Decision::Wait { .. } | Decision::Refuse { .. } => {}
        }
    }

    /// A birth needs every listed member to have said that it has no data, and a store that is off or has
    /// been asked and has no other cluster, nor another life of this one.
    #[test]
    fn i13_a_birth_needs_everybody_and_an_unowned_prefix(
        local in local(), peers in peers(), store in store()
    ) {
        let Decision::Form { resume, coordinator } = decide(&local, &peers, &store).decision else {
            return Ok(());
        };
        for peer in &peers.peers {
            match &peer.answer {
                PeerAnswer::Empty => {}
                PeerAnswer::Forming { cluster } => prop_assert_eq!(Some(cluster), resume.as_ref()),
                other => prop_assert!(false, "formed although {} answers {other}", peer.name),
            }
        }
        match &store {
            StoreFacts::Off => {}
            StoreFacts::Unreachable { .. } => prop_assert!(false, "formed without asking the store"),
            StoreFacts::Reached { clusters, .. } => {
                let other = clusters.iter().find(|c| match &resume {
                    Some(own) => c.uuid != own.uuid || c.incarnation > own.incarnation,
                    None => true,
                });
                prop_assert_eq!(other, None);
            }
        }
        // Every member that forms from the same list names the same coordinator.
        let first = peers.peers.iter().map(|p| p.name.clone()).chain([local.name.clone()]).min();
        prop_assert_eq!(Some(coordinator), first);
    }

    /// A newer life of the own cluster, wherever it is seen, keeps a node from serving.
    #[test]
    fn i13_a_newer_life_fences(local in local(), peers in peers(), store in store()) {
        let Some(identity) = identity_of(&local) else { return Ok(()) };
        let stored = match &store {
            StoreFacts::Reached { clusters, .. } => clusters.clone(),
            StoreFacts::Off | StoreFacts::Unreachable { .. } => Vec::new(),
        };
        let newer = peers.peers.iter().filter_map(|p| cluster_of(&p.answer)).chain(&stored)
            .any(|c| c.uuid == identity.cluster.uuid && c.incarnation > identity.cluster.incarnation);
        if newer {
            let decision = decide(&local, &peers, &store).decision;
            let stopped = matches!(
                decision,
                Decision::Fence { .. } | Decision::Refuse { .. } | Decision::SetAside
            );
            prop_assert!(stopped, "{:?}", decision);
        }
    }

    /// Nothing is restored beside a life that may still have a quorum, or one that is newer.
    #[test]
    fn i13_nothing_is_restored_while_a_node_of_an_older_life_follows_a_leader(
        local in local(), peers in peers(), store in store()
    ) {
        let Decision::Restore { life, .. } = decide(&local, &peers, &store).decision else {
            return Ok(());
        };
        for peer in &peers.peers {
            if let PeerAnswer::Member { cluster, leader: Some(_), .. } = &peer.answer
                && cluster.uuid == life.uuid
            {
                prop_assert!(cluster.incarnation >= life.incarnation, "{cluster:?}");
            }
            if let Some(cluster) = cluster_of(&peer.answer)
                && cluster.uuid == life.uuid
            {
                prop_assert!(cluster.incarnation <= life.incarnation, "{cluster:?}");
            }
        }
    }

    /// The store being down never keeps a node with its data from starting.
    #[test]
    fn i18_a_store_that_is_down_stops_no_good_directory(local in local(), peers in peers(), store in store()) {
        let Some(identity) = identity_of(&local) else { return Ok(()) };
        let down = StoreFacts::Unreachable { why: "down".to_owned() };
        if identity.stage == Stage::Complete
            && decide(&local, &peers, &store).decision == Decision::Start
        {
            prop_assert_eq!(decide(&local, &peers, &down).decision, Decision::Start);
        }
        if let Decision::Rejoin { cluster, .. } = decide(&local, &peers, &store).decision {
            let without = decide(&local, &peers, &down).decision;
            let same = matches!(&without, Decision::Rejoin { cluster: c, .. } if *c == cluster);
            prop_assert!(same, "{:?}", without);
        }
    }

    /// What is damaged is refused, whatever the others say.
    #[test]
    fn a_damaged_directory_is_always_refused(peers in peers(), store in store()) {
        let data = LocalData::Damaged { finding: "a bit is wrong".to_owned() };
        let local = LocalFacts { name: "node1".to_owned(), data };
        let decision = decide(&local, &peers, &store).decision;
        let refused = matches!(&decision, Decision::Refuse { finding, .. } if finding == "a bit is wrong");
        prop_assert!(refused, "{:?}", decision);
    }

    /// Nobody joins a cluster that no peer is a living member of, or that has gone on to a newer life.
    #[test]
    fn a_rejoin_needs_a_living_member_with_a_leader(local in local(), peers in peers(), store in store()) {
        let Decision::Rejoin { cluster, via, .. } = decide(&local, &peers, &store).decision else {
            return Ok(());
        };
        prop_assert!(!via.is_empty());
        for name in via {
            let peer = peers.peers.iter().find(|p| p.name == name).unwrap();
            let lives = matches!(&peer.answer,
                PeerAnswer::Member { cluster: c, leader: Some(_), .. } if *c == cluster);
            prop_assert!(lives, "{:?}", peer);
        }
        if let StoreFacts::Reached { clusters, .. } = &store {
            let newer = clusters.iter()
                .find(|c| c.uuid == cluster.uuid && c.incarnation > cluster.incarnation);
            prop_assert_eq!(newer, None);
        }
    }
}

/// All 3-node clusters with one empty node: where any peer has data, or may have some, nothing is born.
#[test]
fn i13_silence_is_not_emptiness() {
    let red = || ClusterId::new("red", 1);
    let answers = [
        PeerAnswer::Silent {
            why: "timed out".to_owned(),
        },
        PeerAnswer::Empty,
        PeerAnswer::Fenced { cluster: red() },
        PeerAnswer::Member {
            cluster: red(),
            leader: None,
            you_are_retired: false,
        },
        PeerAnswer::Member {
            cluster: red(),
            leader: Some("node2".to_owned()),
            you_are_retired: false,
        },
    ];
    let local = LocalFacts {
        name: "node1".to_owned(),
        data: LocalData::Empty,
    };
    let store = StoreFacts::Reached {
        clusters: Vec::new(),
        order: None,
    };
    let mut born = 0;
    for one in &answers {
        for other in &answers {
            let peers = PeerFacts {
                peers: vec![
                    PeerFact {
                        name: "node2".to_owned(),
                        answer: one.clone(),
                    },
                    PeerFact {
                        name: "node3".to_owned(),
                        answer: other.clone(),
                    },
                ],
            };
            let decision = decide(&local, &peers, &store).decision;
            let silent = |a: &PeerAnswer| matches!(a, PeerAnswer::Silent { .. });
            if has_data(one) || has_data(other) || silent(one) || silent(other) {
                assert_ne!(decision.word(), "form", "{one} and {other}");
            } else {
                assert_eq!(decision.word(), "form", "{one} and {other}");
                born += 1;
            }
        }
    }
    assert_eq!(born, 1);
}
