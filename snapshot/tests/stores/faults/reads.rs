//! Bodies that come back wrong, once or always, and objects that are gone.

use confman_snapshot::Kind;
use confman_snapshot::build::Phase;
use confman_snapshot::testing::{Fault, Op, Rule};
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::{Bench, group};
use crate::place::Place;

on_every_store! {
    o06_o07_o09_a_body_that_is_wrong_on_the_way_is_asked_for_again
    i9_a_body_that_is_always_wrong_is_damaged_and_named
    i8_what_does_not_verify_is_not_recorded_and_not_deleted
    c17_a_snapshot_that_is_deleted_while_it_is_read_is_not_found
    o15_an_emptied_bucket_is_not_found_and_not_unreachable
}

async fn o06_o07_o09_a_body_that_is_wrong_on_the_way_is_asked_for_again(place: Place) {
    let bench = Bench::at(&place);
    let other = bench.small().await.unwrap();
    let record = bench.another(11, 60).await;
    let other = format!("{}/{}", bench.prefix, other.object);
    for fault in [
        Fault::Truncate(0),
        Fault::Truncate(3),
        Fault::Flip(0),
        Fault::Flip(30_000),
        Fault::Swap(other),
    ] {
        for nth in 0..6 {
            bench.store.heal();
            bench.store.add(Rule::on(Op::Get, fault.clone()).after(nth));
            let verified = bench.repository.verify(&group(), &record.id).await;
            verified.unwrap_or_else(|e| panic!("{fault:?} of read {nth}: {e}"));
        }
    }
}

async fn i9_a_body_that_is_always_wrong_is_damaged_and_named(place: Place) {
    let bench = Bench::at(&place);
    let other = bench.small().await.unwrap();
    let record = bench.another(11, 60).await;
    let other = format!("{}/{}", bench.prefix, other.object);
    for fault in [
        Fault::Truncate(0),
        Fault::Truncate(3),
        Fault::Flip(0),
        Fault::Flip(30_000),
        Fault::Swap(other),
    ] {
        bench.store.heal();
        bench.store.add(Rule::on(Op::Get, fault.clone()).always());
        let error = bench
            .repository
            .verify(&group(), &record.id)
            .await
            .unwrap_err();
        assert!(
            error.is_bad_snapshot() && !error.is_unreachable(),
            "{fault:?}: {error}"
        );
        assert!(
            error.to_string().contains(&record.object),
            "{fault:?}: {error}"
        );
    }
    // It is kept for who wants to look, and good again when the store is.
    bench.store.heal();
    bench.repository.verify(&group(), &record.id).await.unwrap();
}

async fn i8_what_does_not_verify_is_not_recorded_and_not_deleted(place: Place) {
    let bench = Bench::at(&place);
    bench.store.add(Rule::on(Op::Get, Fault::Flip(9)).always());
    let error = bench.small().await.unwrap_err();
    assert_eq!(
        Bench::kind(&error),
        (Phase::Verify, Kind::Damaged),
        "{error}"
    );
    bench.store.heal();
    assert_eq!(bench.listed().await, 1);
    assert_eq!(bench.store.calls(Op::Delete), 0);
}

async fn c17_a_snapshot_that_is_deleted_while_it_is_read_is_not_found(place: Place) {
    let bench = Bench::at(&place);
    let record = bench.large().await.unwrap();
    let reader = bench.repository.open_recorded(&record).await.unwrap();
    let mut stream = reader.records(1);
    stream.next_chunk().await.unwrap();
    bench
        .repository
        .delete_snapshot(&group(), &record.id)
        .await
        .unwrap();
    let error = loop {
        match stream.next_chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("read to the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

async fn o15_an_emptied_bucket_is_not_found_and_not_unreachable(place: Place) {
    let bench = Bench::at(&place);
    let record = bench.small().await.unwrap();
    let (inner, prefix) = (bench.store.inner(), bench.prefix.as_str().into());
    let names: Vec<_> = inner
        .list(Some(&prefix))
        .map_ok(|o| o.location)
        .try_collect()
        .await
        .unwrap();
    assert!(!names.is_empty());
    for name in names {
        inner.delete(&name).await.unwrap();
    }
    let error = bench.repository.open_recorded(&record).await.unwrap_err();
    assert!(
        error.is_bad_snapshot() && !error.is_unreachable(),
        "{error}"
    );
}
