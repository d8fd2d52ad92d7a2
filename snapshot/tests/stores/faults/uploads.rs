//! Uploads that fail, for a while or for good, before or after they took effect.

use confman_snapshot::build::Phase;
use confman_snapshot::testing::{Failure, Fault, Op, Rule};
use confman_snapshot::{Kind, SnapshotId};

use super::{Bench, group};
use crate::place::Place;

on_every_store! {
    o01_to_o05_a_put_that_fails_for_a_while_or_whose_answer_is_lost
    o03_a_last_try_whose_answer_is_lost_still_counts
    c09_an_upload_in_parts_that_fails_is_aborted_and_tried_again
    o13_o19_what_waiting_does_not_mend_is_not_tried_again
    o14_credentials_that_expire_in_the_middle_end_an_upload_that_leaves_nothing
    i18_a_store_that_is_down_or_hangs_is_given_up_in_bounded_time
}

/// Faults that pass: the snapshot is there in the end, once, whole.
async fn o01_to_o05_a_put_that_fails_for_a_while_or_whose_answer_is_lost(place: Place) {
    let faults = [
        Rule::on(Op::Put, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Put, Fault::Before(Failure::Unreachable)).times(2),
        Rule::on(Op::Put, Fault::After(Failure::Busy)),
        Rule::on(Op::Put, Fault::After(Failure::Unreachable)),
        Rule::on(Op::Put, Fault::ExistsAfter),
        Rule::on(Op::Put, Fault::ExistsBefore),
        Rule::on(Op::Put, Fault::ExistsBefore).times(2),
        Rule::on(Op::Put, Fault::Hang),
        Rule::on(Op::Head, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Head, Fault::Hang),
        Rule::on(Op::Get, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Get, Fault::Hang).after(1),
    ];
    let place = &place;
    futures::future::join_all(faults.map(|fault| async move {
        let bench = Bench::at(place);
        let shown = format!("{fault:?}");
        bench.store.add(fault);
        let record = bench
            .small()
            .await
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        bench.is_right(&record).await;
    }))
    .await;
}

async fn o03_a_last_try_whose_answer_is_lost_still_counts(place: Place) {
    let bench = Bench::at(&place);
    bench
        .store
        .add(Rule::on(Op::Put, Fault::Before(Failure::Busy)).times(2));
    bench
        .store
        .add(Rule::on(Op::Put, Fault::After(Failure::Busy)));
    let record = bench.small().await.unwrap();
    assert_eq!(bench.store.calls(Op::Put), 3);
    bench.is_right(&record).await;
}

async fn c09_an_upload_in_parts_that_fails_is_aborted_and_tried_again(place: Place) {
    let last = Bench::at(&place).parts - 1;
    let faults = [
        (Rule::on(Op::Start, Fault::Before(Failure::Busy)), 0),
        (
            Rule::on(Op::Part, Fault::Before(Failure::Busy)).after(last / 2),
            1,
        ),
        (
            Rule::on(Op::Part, Fault::After(Failure::Unreachable)).after(last),
            1,
        ),
        (Rule::on(Op::Part, Fault::Hang).after(last / 2), 1),
        (Rule::on(Op::Complete, Fault::Before(Failure::Busy)), 1),
        (Rule::on(Op::Complete, Fault::After(Failure::Busy)), 1),
    ];
    for (fault, aborts) in faults {
        let bench = Bench::at(&place);
        let shown = format!("{fault:?}");
        bench.store.add(fault);
        let record = bench
            .large()
            .await
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert!(record.object_bytes > 250_000);
        assert_eq!(bench.store.calls(Op::Abort), aborts, "{shown}");
        assert_eq!(bench.store.calls(Op::Put), 0, "{shown}");
        bench.is_right(&record).await;
    }
    // A completion that went through is not sent again.
    let bench = Bench::at(&place);
    bench
        .store
        .add(Rule::on(Op::Complete, Fault::After(Failure::Busy)));
    bench.large().await.unwrap();
    assert_eq!(
        (
            bench.store.calls(Op::Start),
            bench.store.calls(Op::Complete)
        ),
        (1, 1)
    );
}

async fn o13_o19_what_waiting_does_not_mend_is_not_tried_again(place: Place) {
    for (failure, kind) in [
        (Failure::Denied, Kind::Credentials),
        (Failure::Expired, Kind::Credentials),
        (Failure::Full, Kind::Configuration),
    ] {
        for large in [false, true] {
            let bench = Bench::at(&place);
            bench
                .store
                .add(Rule::on(Op::Put, Fault::Before(failure)).always());
            bench
                .store
                .add(Rule::on(Op::Start, Fault::Before(failure)).always());
            let error = if large {
                bench.large().await
            } else {
                bench.small().await
            }
            .unwrap_err();
            assert_eq!(Bench::kind(&error), (Phase::Upload, kind), "{error}");
            assert_eq!(bench.store.calls(Op::Put) + bench.store.calls(Op::Start), 1);
            bench.store.heal();
            assert_eq!(bench.listed().await, 0);
            // It goes on as soon as it may.
            bench.small().await.unwrap();
        }
    }
}

async fn o14_credentials_that_expire_in_the_middle_end_an_upload_that_leaves_nothing(place: Place) {
    for op in [Op::Part, Op::Complete, Op::Get] {
        let bench = Bench::at(&place);
        let after = if op == Op::Complete { 0 } else { 1 };
        let expired = Fault::Before(Failure::Expired);
        bench.store.add(Rule::on(op, expired).after(after).always());
        let error = bench.large().await.unwrap_err();
        assert_eq!(error.source.kind(), Kind::Credentials, "{op:?}: {error}");
        // Not taken for damage: no older snapshot would be better.
        assert!(!error.source.is_bad_snapshot(), "{op:?}: {error}");
        bench.store.heal();
        let uploaded = usize::from(op == Op::Get);
        assert_eq!(bench.listed().await, uploaded, "{op:?}");
        assert_eq!(bench.store.calls(Op::Abort), 1 - uploaded, "{op:?}");
        bench.is_right(&bench.large().await.unwrap()).await;
    }
}

async fn i18_a_store_that_is_down_or_hangs_is_given_up_in_bounded_time(place: Place) {
    let ops = [
        Op::Put,
        Op::Start,
        Op::Part,
        Op::Complete,
        Op::Head,
        Op::Get,
    ];
    let faults = [
        Fault::Hang,
        Fault::Before(Failure::Unreachable),
        Fault::Before(Failure::Busy),
    ];
    let cases = ops
        .into_iter()
        .flat_map(|op| faults.clone().map(|fault| (op, fault)));
    let place = &place;
    // Each has a store of its own: they may wait side by side.
    futures::future::join_all(cases.map(|(op, fault)| async move {
        let bench = Bench::impatient(place);
        let shown = format!("{op:?} {fault:?}");
        bench.store.add(Rule::on(op, fault).always());
        let started = std::time::Instant::now();
        let large = matches!(op, Op::Start | Op::Part | Op::Complete);
        let built = if large {
            bench.large().await
        } else {
            bench.small().await
        };
        let error = built.unwrap_err();
        let unreachable = error.source.is_unreachable() && !error.source.is_bad_snapshot();
        assert!(unreachable, "{shown}: {error}");
        // An end of an upload in parts may take the whole time, three times over; looks and aborts come on top,
        // and what a busy machine takes for the large ones.
        let bound = bench.options.transfer_total * 4
            + bench.options.small_total * 3
            + std::time::Duration::from_secs(10);
        let took = started.elapsed();
        assert!(took < bound, "{shown}: {took:?}");
    }))
    .await;
    let bench = Bench::impatient(place);
    bench.store.add(Rule::on(Op::List, Fault::Hang).always());
    assert_eq!(
        bench
            .repository
            .list_snapshots(&group())
            .await
            .unwrap_err()
            .kind,
        Kind::Wait
    );
    bench.store.add(Rule::on(Op::Delete, Fault::Hang).always());
    let id = SnapshotId {
        index: 1,
        incarnation: 1,
        term: 1,
        nonce: 1,
    };
    assert_eq!(
        bench
            .repository
            .delete_snapshot(&group(), &id)
            .await
            .unwrap_err()
            .kind,
        Kind::Wait
    );
    assert_eq!(bench.repository.ping().await.unwrap_err().kind, Kind::Wait);
}
