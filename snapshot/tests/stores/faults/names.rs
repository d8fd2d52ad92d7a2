//! Listings, deletions, conditions and claims of a store that does otherwise than it says.

use std::path::PathBuf;

use confman_snapshot::repository::{Begun, Claim, ClusterObject, Conditions};
use confman_snapshot::testing::{Failure, Fault, Op, Rule, state};
use confman_snapshot::{BoxError, ClusterId, Kind, SnapshotId, write_snapshot};
use futures::StreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::{Bench, CHUNK_BYTES, group};
use crate::place::Place;

on_every_store! {
    o10_a_stale_listing_hides_nothing_that_is_recorded
    o10_a_listing_that_lacks_its_last_pages_hides_nothing_that_is_recorded
    deletes_are_idempotent_and_denied_ones_say_so
    a_deletion_that_did_nothing_is_seen_in_the_next_listing
    o12_a_store_that_ignores_conditions_loses_nothing
    o12_a_store_that_refuses_conditions_is_written_without_them
    o12_a_bad_request_that_passes_does_not_take_the_fence_down
    o12_what_came_between_two_tries_without_a_condition_stays
    a_probe_that_may_not_delete_leaves_two_objects_however_often_it_is_made
    a_probe_that_finds_its_own_object_believes_the_first_look
    a_probe_that_may_not_put_any_more_says_nothing_of_conditions
    o03_a_claim_whose_answer_is_lost_is_ours
}

async fn o10_a_stale_listing_hides_nothing_that_is_recorded(place: Place) {
    let bench = Bench::at(&place);
    let record = bench.small().await.unwrap();
    bench
        .store
        .add(Rule::on(Op::List, Fault::Hide(record.id.to_string())).always());
    assert_eq!(bench.listed().await, 0);
    bench.repository.open_recorded(&record).await.unwrap();
    bench.store.heal();
    // Twice and in reverse: each once, newest first.
    for index in [9637, 10_137] {
        bench.another(index, 5).await;
    }
    bench.store.add(Rule::on(Op::List, Fault::Repeat).always());
    let listing = bench.repository.list_snapshots(&group()).await.unwrap();
    let listed: Vec<u64> = listing.snapshots.iter().map(|s| s.id.index).collect();
    assert_eq!(listed, [10_137, 9637, 10]);
    // O10, the listing that breaks off: from the start again.
    bench.store.heal();
    bench
        .store
        .add(Rule::on(Op::List, Fault::Before(Failure::Busy)).times(2));
    assert_eq!(bench.listed().await, 3);
}

async fn o10_a_listing_that_lacks_its_last_pages_hides_nothing_that_is_recorded(place: Place) {
    let bench = Bench::at(&place);
    let mut records = Vec::new();
    for index in [20, 30, 40] {
        records.push(bench.another(index, 5).await);
    }
    bench.store.add(Rule::on(Op::List, Fault::Cut(1)).always());
    assert_eq!(bench.listed().await, 1);
    // What is recorded is asked for by name.
    for record in &records {
        bench.repository.open_recorded(record).await.unwrap();
        bench.repository.verify(&group(), &record.id).await.unwrap();
    }
}

async fn deletes_are_idempotent_and_denied_ones_say_so(place: Place) {
    let bench = Bench::at(&place);
    let record = bench.small().await.unwrap();
    bench
        .store
        .add(Rule::on(Op::Delete, Fault::Before(Failure::Denied)).always());
    let error = bench
        .repository
        .delete_snapshot(&group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Credentials);
    let probe = bench.repository.probe_short().await.unwrap();
    assert!(!probe.delete && probe.delete_error.unwrap().contains("delete"));
    for fault in [Fault::After(Failure::Busy), Fault::Before(Failure::Gone)] {
        bench.store.heal();
        bench.store.add(Rule::on(Op::Delete, fault));
        bench
            .repository
            .delete_snapshot(&group(), &record.id)
            .await
            .unwrap();
    }
}

async fn a_deletion_that_did_nothing_is_seen_in_the_next_listing(place: Place) {
    let bench = Bench::at(&place);
    let record = bench.small().await.unwrap();
    bench.store.add(Rule::on(Op::Delete, Fault::Nothing));
    for left in [1, 0] {
        bench
            .repository
            .delete_snapshot(&group(), &record.id)
            .await
            .unwrap();
        assert_eq!(bench.listed().await, left);
    }
}

async fn o12_a_store_that_ignores_conditions_loses_nothing(place: Place) {
    let bench = Bench::at(&place);
    bench
        .store
        .add(Rule::on(Op::Put, Fault::Unconditional).always());
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Ignored);
    // Another object under our name is seen by looking, before anything is put.
    let record = bench.small().await.unwrap();
    let puts = bench.store.calls(Op::Put);
    let error = bench
        .repository
        .put_snapshot(&other_file(&bench, 20), &group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(bench.store.calls(Op::Put), puts);
    bench.is_right(&record).await;
}

async fn o12_a_store_that_refuses_conditions_is_written_without_them(place: Place) {
    let bench = Bench::at(&place);
    let refused = Rule::on(Op::Put, Fault::RefuseConditions).always();
    bench.store.add(refused.clone());
    // Nobody has looked: the condition is sent, refused, and left out.
    assert_eq!(bench.repository.conditions(), Conditions::Unknown);
    let record = bench.small().await.unwrap();
    bench.is_right(&record).await;
    assert_eq!(bench.repository.conditions(), Conditions::Refused);
    bench.store.add(refused.clone());
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Refused);
    // A look at a bad moment takes nothing back.
    bench.store.heal();
    let busy = Fault::Before(Failure::Busy);
    bench.store.add(Rule::on(Op::Put, busy).after(1));
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Unknown);
    bench.store.add(refused);
    let record = bench.small().await.unwrap();
    // What lies there already is left as it is all the same.
    let error = bench
        .repository
        .put_snapshot(&other_file(&bench, 20), &group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    bench.is_right(&record).await;
}

/// S3 says 400 to much that has nothing to do with conditions.
async fn o12_a_bad_request_that_passes_does_not_take_the_fence_down(place: Place) {
    let bench = Bench::at(&place);
    let unsaid = || Rule::on(Op::Put, Fault::Before(Failure::Unsaid));
    bench.store.add(unsaid());
    bench.small().await.unwrap();
    assert_eq!(bench.store.calls(Op::Put), 2);
    assert_eq!(bench.repository.conditions(), Conditions::Unknown);
    // A look takes one answer for what it is, too.
    bench.store.add(unsaid().after(1));
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Honoured);
    // What is known to hold is never left out, and not forgotten.
    let refused = Rule::on(Op::Put, Fault::RefuseConditions);
    bench.store.add(refused.always());
    let error = bench.repository.begin_life(&life("n")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Configuration, "{error}");
    bench.store.heal();
    // But asked again: what passes fails nothing.
    bench.store.add(unsaid());
    bench.another(20, 5).await;
    bench.store.add(unsaid().times(2));
    let error = bench.repository.begin_life(&life("n")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Configuration, "{error}");
    assert_eq!(bench.repository.conditions(), Conditions::Honoured);
    assert!(bench.repository.list_clusters().await.unwrap().is_empty());
}

async fn o12_what_came_between_two_tries_without_a_condition_stays(place: Place) {
    let refused = Rule::on(Op::Put, Fault::RefuseConditions);
    let ignored = Rule::on(Op::Put, Fault::Unconditional).always();
    let hangs = Rule::on(Op::Put, Fault::Hang);
    // Refused, and left out from then on; or sent each time, and never heeded.
    for (rules, hanging) in [([refused, hangs.clone()], 2), ([hangs, ignored], 1)] {
        let bench = Bench::at(&place);
        rules.into_iter().for_each(|rule| bench.store.add(rule));
        let (ours, theirs) = (life("ours"), life("theirs"));
        let other = async {
            while bench.store.calls(Op::Put) < hanging {
                tokio::task::yield_now().await;
            }
            let name = confman_snapshot::paths::cluster(&theirs.cluster);
            let path = object_store::path::Path::from(format!("{}/{name}", bench.prefix));
            let bytes = serde_json::to_vec(&theirs).unwrap();
            bench.store.inner().put(&path, bytes.into()).await.unwrap();
        };
        let (begun, ()) = tokio::join!(bench.repository.begin_life(&ours), other);
        assert_eq!(begun.unwrap(), Begun::Other(Box::new(theirs)));
    }
}

async fn a_probe_that_may_not_delete_leaves_two_objects_however_often_it_is_made(place: Place) {
    let bench = Bench::at(&place);
    let denied = Rule::on(Op::Delete, Fault::Before(Failure::Denied));
    bench.store.add(denied.always());
    for _ in 0..3 {
        let probe = bench.repository.probe_short().await.unwrap();
        assert!(!probe.delete && probe.list_after_put);
        assert_eq!(probe.conditions, Conditions::Honoured);
    }
    let prefix = object_store::path::Path::from(format!("{}/probe", bench.prefix));
    let there: Vec<_> = bench.store.inner().list(Some(&prefix)).collect().await;
    // That of its race is the other.
    assert_eq!(there.len(), 2, "{there:?}");
    // Gone by other hands, it is put again.
    for left in there {
        let name = left.unwrap().location;
        bench.store.inner().delete(&name).await.unwrap();
    }
    bench.repository.probe_short().await.unwrap();
}

/// A store that looks first and writes then is right as long as one comes at a time. In memory, where those who come together look together.
#[tokio::test]
async fn o12_a_store_that_lets_two_creators_win_is_not_taken_for_one_that_honours_conditions() {
    let bench = Bench::at(&Place::memory());
    let racing = Rule::on(Op::Put, Fault::LookThenPut).always();
    bench.store.add(racing);
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Racing);
    assert_eq!(bench.repository.conditions(), Conditions::Racing);
    assert!(probe.delete && left_by_probes(&bench).await.is_empty());
    // So it is looked at before each put, as with one that ignores conditions.
    let record = bench.small().await.unwrap();
    let puts = bench.store.calls(Op::Put);
    let error = bench
        .repository
        .put_snapshot(&other_file(&bench, 20), &group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(bench.store.calls(Op::Put), puts);
    // A race that goes well proves nothing any more.
    bench.store.heal();
    bench.repository.probe_short().await.unwrap();
    assert_eq!(bench.repository.conditions(), Conditions::Racing);
}

/// All that there is to a race that says nothing: it is bounded, it leaves nothing, and another one decides.
#[tokio::test]
async fn o12_a_race_without_a_winner_proves_nothing_and_leaves_nothing() {
    let bench = Bench::at(&Place::memory());
    for fault in [
        Fault::ExistsBefore,
        Fault::After(Failure::Busy),
        Fault::Hang,
    ] {
        bench.store.heal();
        bench
            .store
            .add(Rule::on(Op::Put, fault).named("-race-").always());
        let probe = bench.repository.probe_short().await.unwrap();
        assert_eq!(probe.conditions, Conditions::Unknown);
        assert!(left_by_probes(&bench).await.is_empty());
    }
    bench.store.heal();
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Honoured);
    assert!(left_by_probes(&bench).await.is_empty());
    // One is told that it won, and another's bytes are there.
    let second = Rule::on(Op::Put, Fault::UnconditionalAfter(Failure::Denied));
    bench.store.add(second.named("-race-").after(1));
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Racing);
}

async fn left_by_probes(bench: &Bench) -> Vec<object_store::path::Path> {
    let prefix = object_store::path::Path::from(format!("{}/probe", bench.prefix));
    let there: Vec<_> = bench.store.inner().list(Some(&prefix)).collect().await;
    there
        .into_iter()
        .map(|meta| meta.unwrap().location)
        .collect()
}

/// What lies there was listed late when it was put, and has been there for long now.
async fn a_probe_that_finds_its_own_object_believes_the_first_look(place: Place) {
    let bench = Bench::at(&place);
    let denied = || Fault::Before(Failure::Denied);
    bench.store.add(Rule::on(Op::Delete, denied()).always());
    let hidden = Fault::Hide("probe".to_owned());
    bench.store.add(Rule::on(Op::List, hidden));
    let probe = bench.repository.probe_short().await.unwrap();
    assert!(!probe.delete && !probe.list_after_put);
    // Nor may it be overwritten: a put is refused, whatever its mode.
    bench.store.add(Rule::on(Op::Put, denied()).always());
    let probe = bench.repository.probe_short().await.unwrap();
    assert!(!probe.delete && !probe.list_after_put);
    // Where it can be deleted again, the next look is a first one.
    bench.store.heal();
    bench.repository.probe_short().await.unwrap();
    let probe = bench.repository.probe_short().await.unwrap();
    assert!(probe.delete && probe.list_after_put);
}

/// Its object is there, so all but the put would go well.
async fn a_probe_that_may_not_put_any_more_says_nothing_of_conditions(place: Place) {
    let bench = Bench::at(&place);
    let denied = || Fault::Before(Failure::Denied);
    let fault = |op, fault| bench.store.add(Rule::on(op, fault).always());
    fault(Op::Delete, denied());
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Honoured);
    // A right that was taken since, or an object that may not be overwritten.
    fault(Op::Put, denied());
    let probe = bench.repository.probe_short().await.unwrap();
    assert_eq!(probe.conditions, Conditions::Unknown);
    assert_eq!(bench.repository.conditions(), Conditions::Honoured);
    // What is neither is an error, as it would be without an object that was left.
    bench.store.heal();
    fault(Op::Delete, denied());
    fault(Op::Put, Fault::Before(Failure::Unsaid));
    let error = bench.repository.probe_short().await.unwrap_err();
    assert_eq!(
        (error.kind, error.operation),
        (Kind::Configuration, "put"),
        "{error}"
    );
}

fn life(nonce: &str) -> ClusterObject {
    let cluster = ClusterId::new("11111111-1111-4111-8111-111111111111", 1);
    ClusterObject::new(cluster, 0, "node1", nonce)
}

/// A snapshot of the same name that was built at another time.
fn other_file(bench: &Bench, count: usize) -> PathBuf {
    let (mut info, records) = state(&group(), 10, count, 500);
    info.created_us += 1;
    let path = bench.dir.path().join("other.snap");
    let id = SnapshotId::new(info.position, 1, 7);
    let records = records.into_iter().map(Ok::<_, BoxError>);
    write_snapshot(
        &path,
        &id,
        &info,
        records,
        &bench.options(CHUNK_BYTES).write,
    )
    .unwrap();
    path
}

async fn o03_a_claim_whose_answer_is_lost_is_ours(place: Place) {
    for fault in [
        Fault::After(Failure::Busy),
        Fault::ExistsAfter,
        Fault::ExistsBefore,
        Fault::Hang,
    ] {
        let bench = Bench::at(&place);
        let object = life("n");
        bench.store.add(Rule::on(Op::Put, fault.clone()));
        assert_eq!(
            bench.repository.claim_cluster(&object).await.unwrap(),
            Claim::Ours,
            "{fault:?}"
        );
        assert_eq!(bench.repository.list_clusters().await.unwrap(), [object]);
    }
}
