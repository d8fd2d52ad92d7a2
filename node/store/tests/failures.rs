//! A replica that cannot go on says what failed, and not what came of it.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{One, put};

/// redb's words for it, which this product knows them by.
const FOLLOWS: &str = "Previous I/O error occurred. Please close and re-open the database.";
const FULL: &str = "No space left on device";

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_told_by_whoever_met_it_and_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    let one = One::start(dir.path()).await;
    assert_eq!(one.state.failure(), None);
    // Here who meets what follows is the first to say so.
    let says = format!("1*return({FOLLOWS})->1*return({FULL})->return({FOLLOWS})");
    fail::cfg("store::sync", &says).unwrap();
    one.write(put("k", b"v")).await;
    // The store's own thread may be there first, and has met the same then.
    for _ in 0..3 {
        drop(one.state.flush_durable());
    }
    let told = one.state.failure().unwrap();
    assert!(told.contains(FULL), "{told}");
    fail::remove("store::sync");
}
