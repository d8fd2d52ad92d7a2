//! A replica that cannot go on says what failed, and not what came of it.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{One, options, put};

/// redb's words for it, which this product knows them by.
const FOLLOWS: &str = "Previous I/O error occurred. Please close and re-open the database.";
const FULL: &str = "No space left on device";

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_told_by_whoever_met_it_and_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    // Nobody but this test makes anything durable.
    options.flush_interval = Duration::from_secs(3600);
    let one = One::start_with(dir.path(), options).await;
    assert_eq!(one.state.failure(), None);
    // Here who meets what follows is the first to say so.
    let says = format!("1*return({FOLLOWS})->1*return({FULL})->return({FOLLOWS})");
    fail::cfg("store::sync", &says).unwrap();
    one.write(put("k", b"v")).await;
    for _ in 0..3 {
        one.state.flush_durable().unwrap_err();
    }
    let told = one.state.failure().unwrap();
    assert!(told.contains(FULL), "{told}");
    fail::remove("store::sync");
}
