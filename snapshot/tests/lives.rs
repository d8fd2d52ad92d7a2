//! How a life of a cluster is begun, restored and reported, in the words that lie in the store.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use confman_snapshot::model::{ClusterId, GroupId, Position};
use confman_snapshot::paths::{self, ReportKind};
use confman_snapshot::repository::{
    Begun, Claim, ClusterObject, DrillVerdict, MemberTaken, OrderDone, OrderError, OrderMember,
    Report, RepositoryOptions, RestoreOrder, Taken,
};
use confman_snapshot::{Kind, Repository, SnapshotId, SnapshotRecord};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

const UUID: &str = "11111111-1111-4111-8111-111111111111";

fn repository() -> (Repository, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    let dynamic: Arc<dyn ObjectStore> = store.clone();
    (
        Repository::over(dynamic, "p", "memory:///p", RepositoryOptions::default()),
        store,
    )
}

fn record(group: GroupId) -> SnapshotRecord {
    let position = Position::new(3, 1, 40);
    let id = SnapshotId::new(position, 1, 7);
    SnapshotRecord {
        id,
        object: paths::snapshot(&group, &id),
        group,
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        position,
        object_bytes: 1000,
        manifest_blake3: vec![1; 32],
        state_hash: vec![2; 32],
        records: 5,
        raw_bytes: 900,
        created_us: 1_790_000_000_123_456,
        codec: 0,
        builder_node: 1,
        took_us: 10,
    }
}

fn order() -> RestoreOrder {
    RestoreOrder {
        version: 1,
        plan_id: "6a1e1f0a-0000-4000-8000-000000000000".to_owned(),
        shards: 2,
        term: 1003,
        groups: vec![
            record(GroupId::meta()),
            record(GroupId::config(0)),
            record(GroupId::config(1)),
        ],
        members: vec![member(4, "node1"), member(5, "node2")],
        next_node_id: 6,
        operator: "me".to_owned(),
        summary: "everything after 12:00".to_owned(),
    }
}

fn member(id: u64, name: &str) -> OrderMember {
    OrderMember {
        id,
        name: name.to_owned(),
        api_url: format!("http://{name}:6100"),
        peer_addr: format!("{name}:6101"),
        learner: false,
    }
}

fn life(incarnation: u64) -> ClusterId {
    ClusterId::new(UUID, incarnation)
}

fn object(incarnation: u64, nonce: &str) -> ClusterObject {
    ClusterObject::new(life(incarnation), 1_790_000_000_123_456, "drtool", nonce)
}

#[tokio::test]
async fn m19_of_two_orders_for_one_life_the_first_stays_and_the_second_is_told() {
    let (repository, _) = repository();
    let first = object(2, "a").with_order(&order());
    assert_eq!(repository.begin_life(&first).await.unwrap(), Begun::Ours);
    // Again, after a kill: the same.
    assert_eq!(repository.begin_life(&first).await.unwrap(), Begun::Ours);
    let mut other = order();
    other.plan_id = "another".to_owned();
    let second = object(2, "b").with_order(&other);
    let Begun::Other(there) = repository.begin_life(&second).await.unwrap() else {
        panic!("two orders for one life");
    };
    assert_eq!(there.order().unwrap().unwrap(), order());
    assert_eq!(repository.read_life(&life(2)).await.unwrap(), Some(first));
    assert_eq!(repository.read_life(&life(3)).await.unwrap(), None);
    // The old life sees the new one, whatever began it.
    let claim = repository.claim_cluster(&object(1, "old")).await.unwrap();
    assert_eq!(claim, Claim::Newer(life(2)));
}

/// A copy of a directory whose recovery was undone: it does not get the prefix by asking again.
#[tokio::test]
async fn i13_a_life_that_was_withdrawn_is_not_claimed_again() {
    let (repository, _) = repository();
    let begun = |plan: &str| {
        ClusterObject::new(life(2), 1_800_000_000_000_000, "node1", "nonce")
            .with_recovery(serde_json::json!({ "planId": plan }))
    };
    let ours = begun("plan-a");
    assert_eq!(repository.claim_cluster(&ours).await.unwrap(), Claim::Ours);
    assert_eq!(repository.claim_cluster(&ours).await.unwrap(), Claim::Ours);
    repository.withdraw_cluster(&ours).await.unwrap();
    repository.withdraw_cluster(&ours).await.unwrap();
    for again in [&ours, &begun("plan-b")] {
        let claim = repository.claim_cluster(again).await.unwrap();
        assert_eq!(claim, Claim::Withdrawn);
    }
    assert!(repository.list_clusters().await.unwrap().is_empty());
    assert_eq!(
        repository.highest_incarnation(&life(2).uuid).await.unwrap(),
        2
    );
}

/// A restored life on a prefix that another cluster has objects in: that the prefix is shared must not hide that its own time is over.
#[tokio::test]
async fn i13_a_shared_prefix_hides_neither_a_newer_life_nor_a_rival_nor_a_withdrawal() {
    let (repository, store) = repository();
    let other = ClusterId::new("22222222-2222-4222-8222-222222222222", 1);
    let put = async |object: &ClusterObject| {
        let path = Path::from(format!("p/{}", paths::cluster(&object.cluster)));
        let bytes = serde_json::to_vec(object).unwrap();
        store.put(&path, bytes.into()).await.unwrap();
    };
    put(&ClusterObject::new(other.clone(), 1, "node9", "n")).await;
    let foreign = |ours_lies_there| Claim::Foreign {
        others: vec![other.clone()],
        ours_lies_there,
    };
    let ours = object(2, "a").with_order(&order());
    // Not there yet: it is not put.
    let claim = repository.claim_cluster(&ours).await.unwrap();
    assert_eq!(claim, foreign(false));
    assert_eq!(repository.read_life(&life(2)).await.unwrap(), None);
    put(&ours).await;
    let claim = repository.claim_cluster(&ours).await.unwrap();
    assert_eq!(claim, foreign(true));
    let mut rival = order();
    rival.plan_id = "another".to_owned();
    put(&object(2, "b").with_order(&rival)).await;
    let claim = repository.claim_cluster(&ours).await.unwrap();
    assert_eq!(claim, Claim::Rival("another".to_owned()));
    put(&ours).await;
    repository.withdraw_cluster(&ours).await.unwrap();
    let claim = repository.claim_cluster(&ours).await.unwrap();
    assert_eq!(claim, Claim::Withdrawn);
    put(&object(3, "c")).await;
    let claim = repository.claim_cluster(&ours).await.unwrap();
    assert_eq!(claim, Claim::Newer(life(3)));
}

#[tokio::test]
async fn an_order_is_spent_once_and_for_ever() {
    let (repository, _) = repository();
    assert_eq!(repository.read_done(&life(2)).await.unwrap(), None);
    let done = OrderDone::new(life(2), "plan", 1_790_000_000_000_000, "node1");
    repository.put_done(&done).await.unwrap();
    let later = OrderDone::new(life(2), "plan", 1_790_000_001_000_000, "node2");
    repository.put_done(&later).await.unwrap();
    assert_eq!(repository.read_done(&life(2)).await.unwrap(), Some(done));
    assert_eq!(repository.read_done(&life(3)).await.unwrap(), None);
    // It is no cluster.
    assert!(repository.list_clusters().await.unwrap().is_empty());
}

#[tokio::test]
async fn i13_an_order_that_cannot_be_read_does_not_hide_that_the_life_is_there() {
    let (repository, store) = repository();
    for (order, newer) in [
        (
            serde_json::json!({"version": 3, "shape": ["another"]}),
            true,
        ),
        (serde_json::json!({"version": 1}), false),
        (serde_json::json!("x"), false),
        (serde_json::json!({"version": -1}), false),
    ] {
        let mut life = object(2, "a");
        life.order = Some(order);
        let bytes = serde_json::to_vec(&life).unwrap();
        let path = Path::from(format!("p/{}", paths::cluster(&life.cluster)));
        store.put(&path, bytes.into()).await.unwrap();
        let there = repository.list_clusters().await.unwrap();
        assert_eq!(there.len(), 1);
        let error = there[0].order().unwrap_err();
        assert_eq!(
            matches!(error, OrderError::Newer { found: 3 }),
            newer,
            "{error}"
        );
    }
}

#[test]
fn an_object_of_the_first_version_is_still_read_and_written_alike() {
    let text = format!(
        r#"{{"version":1,"uuid":"{UUID}","incarnation":1,"createdAt":"2026-09-21T14:13:20.123456Z","createdBy":"drtool","nonce":"n"}}"#
    );
    let read: ClusterObject = serde_json::from_str(&text).unwrap();
    assert_eq!(read, object(1, "n"));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

#[test]
fn i19_orders_that_contradict_themselves_are_refused() {
    type Harm = fn(&mut RestoreOrder);
    let harms: [(&str, Harm); 16] = [
        ("no members", |o| o.members.clear()),
        ("an id twice", |o| o.members[1].id = 4),
        ("a name twice", |o| o.members[1].name = "node1".to_owned()),
        ("id zero", |o| o.members[0].id = 0),
        ("an id to be given again", |o| o.next_node_id = 5),
        ("no address", |o| o.members[0].peer_addr.clear()),
        ("no voter", |o| {
            o.version = 2;
            o.members.iter_mut().for_each(|m| m.learner = true);
        }),
        ("a learner of version 1", |o| o.members[0].learner = true),
        ("a long name", |o| o.members[0].name = "x".repeat(2000)),
        ("no plan", |o| o.plan_id.clear()),
        ("a group missing", |o| drop(o.groups.pop())),
        ("a group twice", |o| o.groups[2] = o.groups[1].clone()),
        ("four billion shards", |o| o.shards = u32::MAX),
        ("a low term", |o| o.term = 3),
        ("another cluster's snapshot", |o| {
            o.groups[0].cluster_uuid = UUID.replace('1', "2");
        }),
        ("a snapshot of its own life", |o| {
            let record = &mut o.groups[0];
            record.incarnation = 2;
            record.id.incarnation = 2;
            record.object = paths::snapshot(&record.group, &record.id);
        }),
    ];
    order().check(&life(2)).unwrap();
    for (what, harm) in harms {
        let mut harmed = order();
        harm(&mut harmed);
        assert!(harmed.check(&life(2)).is_err(), "{what}");
    }
}

#[test]
fn i14_the_members_of_an_order_are_the_membership_from_its_position_on() {
    let position = Position::new(3, 1, 40);
    let mut order = order();
    order.members[1].learner = true;
    order.version = RestoreOrder::version_for(&order.members);
    assert_eq!(order.version, 2);
    order.check(&life(2)).unwrap();
    let learns = order.membership(position);
    assert_eq!(learns.voters, [[4].into()]);
    assert!(learns.nodes.contains_key(&5), "{learns:?}");
    order.members[1].learner = false;
    assert_eq!(RestoreOrder::version_for(&order.members), 1);
    let membership = order.membership(position);
    assert_eq!(membership.position, Some(position));
    assert_eq!(membership.voters, [[4, 5].into()]);
    assert_eq!(membership.nodes[&5].peer_addr, "node2:6101");
}

#[tokio::test]
async fn reports_are_listed_newest_first_and_read_back() {
    let (repository, store) = repository();
    let body = serde_json::json!({"ok": true, "seconds": 1.5})
        .as_object()
        .unwrap()
        .clone();
    for (created_us, id) in [
        (1_790_000_000_000_000, "a"),
        (1_790_000_002_000_000, "c"),
        (1_790_000_001_000_000, "b"),
    ] {
        let report = Report::new(ReportKind::Drill, id, created_us, body.clone());
        let object = repository.put_report(&report).await.unwrap();
        assert_eq!(repository.put_report(&report).await.unwrap(), object);
    }
    let stray = Path::from("p/reports/drill/notes.txt");
    store.put(&stray, "x".into()).await.unwrap();
    let listed = repository.list_reports(ReportKind::Drill).await.unwrap();
    let ids: Vec<&str> = listed.iter().map(|l| l.id.as_str()).collect();
    assert_eq!(ids, ["c", "b", "a"]);
    let read = repository.read_report(&listed[0]).await.unwrap();
    assert_eq!((read.body, read.created_us), (body, 1_790_000_002_000_000));
    assert!(
        repository
            .list_reports(ReportKind::Restore)
            .await
            .unwrap()
            .is_empty()
    );
    // One that says another name than it has.
    let bytes =
        serde_json::to_vec(&Report::new(ReportKind::Drill, "z", 5, Default::default())).unwrap();
    store
        .put(&Path::from(format!("p/{}", listed[1].object)), bytes.into())
        .await
        .unwrap();
    assert!(repository.read_report(&listed[1]).await.is_err());
    let odd = Report::new(ReportKind::Drill, "../x", 5, Default::default());
    assert!(repository.put_report(&odd).await.is_err());
}

#[tokio::test]
async fn i8_a_report_that_was_changed_or_cut_is_found() {
    let (repository, store) = repository();
    let body = serde_json::json!({"deep": {"ended": {"well": true}}, "seconds": 0.1})
        .as_object()
        .unwrap()
        .clone();
    let id = DrillVerdict::Degraded.report_id(0x1f);
    assert_eq!(id, "degraded-0000001f");
    let report = Report::new(ReportKind::Drill, id, 1_790_000_000_000_000, body.clone());
    let object = Path::from(format!(
        "p/{}",
        repository.put_report(&report).await.unwrap()
    ));
    let listed = repository.list_reports(ReportKind::Drill).await.unwrap();
    assert_eq!(listed[0].drill_verdict(), Some(DrillVerdict::Degraded));
    let read = repository.read_report(&listed[0]).await.unwrap();
    assert_eq!((read.version, read.body), (2, body));

    let bytes = store.get(&object).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(
        serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "{text}"
    );
    let another = text.replace("true", "null");
    let without = text.split(",\n  \"checksum\"").next().unwrap().to_owned() + "\n}\n";
    let compact: serde_json::Value = serde_json::from_str(&text).unwrap();
    let older_version = text.replace("\"version\": 2", "\"version\": 1");
    for wrong in [
        another,
        without,
        compact.to_string(),
        text[..text.len() / 2].to_owned(),
        older_version,
    ] {
        store.put(&object, wrong.clone().into()).await.unwrap();
        let error = repository.read_report(&listed[0]).await.unwrap_err();
        assert_eq!(error.kind, Kind::Damaged, "{wrong}");
    }
    // As the version before this one wrote them.
    let first = r#"{"version":1,"kind":"drill","id":"degraded-0000001f","createdAt":"2026-09-21T14:13:20Z","ok":1}"#;
    store.put(&object, first.into()).await.unwrap();
    assert_eq!(
        repository.read_report(&listed[0]).await.unwrap().body["ok"],
        1
    );
}

proptest! {
    #[test]
    fn i19_no_bytes_in_an_order_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0..900_usize) {
        let mut text = serde_json::to_vec(&object(2, "a").with_order(&order())).unwrap();
        let at = at.min(text.len());
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        if let Ok(object) = serde_json::from_slice::<ClusterObject>(&text) {
            drop(object.order());
        }
    }
}

#[tokio::test]
async fn i14_an_id_of_an_order_is_taken_up_once() {
    let (repository, _) = repository();
    let taken = |nonce: &str, at: i64| {
        MemberTaken::new(
            life(2),
            "plan",
            (4, "node1"),
            nonce,
            1_790_000_000_000_000 + at,
        )
    };
    assert_eq!(repository.read_taken(&life(2), 4).await.unwrap(), None);
    let first = taken("a", 0);
    assert_eq!(repository.take_member(&first).await.unwrap(), Taken::Ours);
    // The same directory, killed and started again: another time, the same nonce.
    let again = repository.take_member(&taken("a", 5)).await.unwrap();
    assert_eq!(again, Taken::Ours);
    // The same name with an empty disk.
    let wiped = repository.take_member(&taken("b", 9)).await.unwrap();
    assert_eq!(wiped, Taken::Other(Box::new(first.clone())));
    assert_eq!(
        repository.read_taken(&life(2), 4).await.unwrap(),
        Some(first)
    );
    assert_eq!(repository.read_taken(&life(2), 5).await.unwrap(), None);
    assert_eq!(repository.read_taken(&life(3), 4).await.unwrap(), None);
}

#[tokio::test]
async fn i14_a_word_that_cannot_be_read_does_not_free_the_id() {
    let (repository, store) = repository();
    let object = Path::from(format!("p/{}", paths::cluster_member(&life(2), 4)));
    store.put(&object, "{".into()).await.unwrap();
    assert!(repository.read_taken(&life(2), 4).await.is_err());
    let ours = MemberTaken::new(life(2), "plan", (4, "node1"), "a", 1);
    assert!(repository.take_member(&ours).await.is_err());
}
