//! Only in programs that were built for tests: the places at which this process ends as by `kill -9`, and a clock that is wrong.
//!
//! `KILL_POINTS_DIR` names a directory. A process that comes to a place of which a file lies there (`{room}.{place}`) removes
//! the file and dies, so that one file is one death, whichever process comes first.
//!
//! `CLOCK_OFF_FILE` names a file with the seconds by which the clock of this process is wrong, read whenever it is looked at.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fail::FailScenario;
use openraft::async_runtime::WatchReceiver;
use tokio_util::task::AbortOnDropHandle;

use crate::group::Group;

const DIR: &str = "KILL_POINTS_DIR";
const CLOCK_OFF_FILE: &str = "CLOCK_OFF_FILE";

/// Every place that can be named, in the order in which a change, a recovery or a restore comes by.
pub const POINTS: &[&str] = &[
    "membership::before-begin",
    "membership::after-begin",
    "membership::before-admit",
    "membership::after-admit",
    "membership::before-add-learner",
    "membership::after-add-learner",
    "membership::before-promote",
    "membership::after-promote",
    "membership::before-demote",
    "membership::after-demote",
    "membership::before-hand-over",
    "membership::after-hand-over",
    "membership::before-remove-voter",
    "membership::after-remove-voter",
    "membership::before-remove",
    "membership::after-remove",
    "membership::before-readdress",
    "membership::after-readdress",
    "membership::joint",
    "membership::before-finish",
    "membership::after-finish",
    "membership::before-activate",
    "membership::after-activate",
    "membership::before-end",
    "membership::after-end",
    "order::claimed",
    "order::incarnation",
    "order::identity",
    "restore::started",
    "store::before-swap",
    "store::after-swap",
    "restore::installed",
    "order::restored",
    "order::taken-up",
    "life::before-claim",
    "life::after-claim",
    "life::before-begin",
    "life::after-begin",
    "life::before-forget",
    "life::after-forget",
    "order::before-record",
    "order::before-report",
    "order::before-spent",
    "order::after-spent",
];

/// Makes every place look for its file from now on, as long as what is given back lives.
pub(crate) fn arm() -> FailScenario<'static> {
    let scenario = FailScenario::setup();
    if let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) {
        for point in POINTS {
            let file = dir.join(point.replace("::", "."));
            // A name that is taken already is from FAILPOINTS.
            let _ = fail::cfg_callback(*point, move || die_if(&file));
        }
    }
    scenario
}

/// By how much the clock of this process is wrong, in microseconds.
pub(crate) fn clock_off_us() -> i64 {
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os(CLOCK_OFF_FILE).map(PathBuf::from));
    let Some(file) = &*FILE else {
        return 0;
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse::<i64>().map_or(0, |s| s * 1_000_000)
}

fn die_if(file: &Path) {
    // Of several processes one removes it.
    if std::fs::remove_file(file).is_ok() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Until the signal has come.
        loop {
            std::thread::park();
        }
    }
}

/// The place between the two entries of a change of voters: reached when the first of them, with both sets, is committed. It is inside
/// one call of the library's, so it is watched for from outside, until what is given back is dropped.
pub(crate) fn watch_for_joint(group: &Group) -> AbortOnDropHandle<()> {
    let mut metrics = group.raft().metrics();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let committed = metrics.borrow_watched().committed_membership_config.clone();
            if committed.membership().get_joint_config().len() > 1 {
                fail::fail_point!("membership::joint");
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }))
}
