//! A restore that is killed anywhere and run again reaches the same end.
//!
//! "Killed" is a runtime that is dropped with everything on it after a number of steps, or a stop at a named
//! point between two steps; what lies on disk is what the next run has to live with.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use common::{World, assert_is};
use confman_bootstrap::report::{self, Stage};
use confman_bootstrap::{GroupTask, RestoreError, RestoreOutcome};
use confman_snapshot::model::GroupId;
use fail::FailScenario;

/// Gives up after so many polls, as a kill would: `None`.
struct Polls<F> {
    inner: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Runs `work` on a runtime of its own for at most `polls` steps, then drops the runtime with all its tasks.
fn run_for<F: Future>(polls: usize, work: F) -> Option<F::Output> {
    runtime().block_on(Polls {
        inner: Box::pin(work),
        left: polls,
    })
}

fn files_in(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn c18_c19_c23_killed_at_every_step_it_finally_restores_and_leaves_no_litter() {
    // No point is set; it keeps the tests that set one from running beside this one.
    let scenario = FailScenario::setup();
    let setup = runtime();
    let world = setup.block_on(World::on_disk());
    let old = setup.block_on(world.publish(&GroupId::config(0), 40, 400));
    let new = setup.block_on(world.publish(&GroupId::config(0), 60, 400));
    let task = world.task(&GroupId::config(0), &[old, new.clone()]);
    let mut kills = 0;
    // Each run gets one step more than the one before: the kill comes at every step once, on top of what the
    // kill before left.
    let outcome = loop {
        let restorer = world.restorer();
        match run_for(kills + 1, async { restorer.restore_group(&task).await }) {
            Some(outcome) => break outcome.unwrap(),
            None => kills += 1,
        }
        // Between two runs nobody can take what lies there for a finished restore, unless it is one.
        if let Some(report) = report::read(&task.paths).unwrap()
            && report.stage() != Stage::Started
        {
            assert!(report.is_installed(), "after {kills} kills: {report:?}");
            assert_eq!(
                files_in(task.paths.dir()),
                ["log", "restored", "state.redb"]
            );
        }
        assert!(kills < 2000, "it never ends");
    };
    assert!(kills >= 5, "only {kills} steps were seen");
    // Killed after its last word was on disk, it is found finished by the next run.
    assert!(
        !matches!(outcome, RestoreOutcome::NotFromStore(_)),
        "{outcome:?}"
    );
    assert_eq!(outcome.report().snapshot, Some(new.id.to_string()));
    assert_is(&task.paths, &new, 400);
    assert_eq!(
        files_in(task.paths.dir()),
        ["log", "restored", "state.redb"]
    );
    assert!(
        files_in(task.paths.tmp_dir()).len() <= 1,
        "{:?}",
        files_in(task.paths.tmp_dir())
    );
    scenario.teardown();
}

#[test]
fn c20_stopped_between_report_and_install_it_begins_anew() {
    stopped_at("restore::started", |task| {
        assert!(!task.paths.state().exists());
        assert_eq!(
            report::read(&task.paths).unwrap().unwrap().stage(),
            Stage::Started
        );
    });
}

#[test]
fn c20_stopped_after_the_install_and_before_the_report_it_begins_anew() {
    stopped_at("restore::installed", |task| {
        assert!(task.paths.state().exists());
        assert_eq!(
            report::read(&task.paths).unwrap().unwrap().stage(),
            Stage::Started
        );
    });
}

/// Stops a restore at `point`, twice, looks at what is there, and runs it to its end.
fn stopped_at(point: &'static str, look: impl Fn(&GroupTask)) {
    let scenario = FailScenario::setup();
    let runtime = runtime();
    let world = runtime.block_on(World::on_disk());
    let record = runtime.block_on(world.publish(&GroupId::config(0), 60, 100));
    let task = world.task(&GroupId::config(0), std::slice::from_ref(&record));
    let restorer = world.restorer();
    fail::cfg(point, "return").unwrap();
    for _ in 0..2 {
        let error = runtime.block_on(restorer.restore_group(&task)).unwrap_err();
        assert!(
            matches!(error, RestoreError::Stopped(at) if at == point),
            "{error}"
        );
        look(&task);
    }
    fail::cfg(point, "off").unwrap();
    let outcome = runtime.block_on(restorer.restore_group(&task)).unwrap();
    assert!(
        matches!(outcome, RestoreOutcome::FromStore(_)),
        "{outcome:?}"
    );
    assert_is(&task.paths, &record, 100);
    scenario.teardown();
}

/// The store goes away between the kill and the next run: the half product goes, and the leader is asked.
#[test]
fn c20_a_half_product_is_never_taken_for_a_state_when_the_store_is_gone() {
    let scenario = FailScenario::setup();
    let runtime = runtime();
    let world = runtime.block_on(World::on_disk());
    let record = runtime.block_on(world.publish(&GroupId::config(0), 60, 100));
    let task = world.task(&GroupId::config(0), std::slice::from_ref(&record));
    fail::cfg("restore::installed", "return").unwrap();
    runtime
        .block_on(world.restorer().restore_group(&task))
        .unwrap_err();
    fail::cfg("restore::installed", "off").unwrap();
    let outcome = runtime
        .block_on(common::restorer(None).restore_group(&task))
        .unwrap();
    assert!(
        matches!(outcome, RestoreOutcome::NotFromStore(_)),
        "{outcome:?}"
    );
    assert!(!task.paths.state().exists() && !task.paths.log().exists());
    scenario.teardown();
}

#[test]
fn killed_between_groups_the_next_run_fetches_the_others_only() {
    let scenario = FailScenario::setup();
    let runtime = runtime();
    let world = runtime.block_on(World::on_disk());
    let groups = [GroupId::meta(), GroupId::config(0), GroupId::config(1)];
    let mut tasks = Vec::new();
    for group in &groups {
        let record = runtime.block_on(world.publish(group, 60, 50));
        tasks.push(world.task(group, &[record]));
    }
    let restorer = world.restorer();
    runtime.block_on(restorer.restore_group(&tasks[1])).unwrap();
    fail::cfg("restore::started", "1*return->off").unwrap();
    runtime
        .block_on(restorer.restore_groups(tasks.clone()))
        .unwrap_err();
    let outcomes = runtime
        .block_on(restorer.restore_groups(tasks.clone()))
        .unwrap();
    let fetched = outcomes
        .iter()
        .filter(|o| matches!(o, RestoreOutcome::FromStore(_)))
        .count();
    // One was stopped, one had been there before, and one went on beside the one that was stopped.
    assert_eq!(fetched, 1, "{outcomes:?}");
    for task in &tasks {
        assert_is(&task.paths, &task.candidates[0], 50);
    }
    scenario.teardown();
}
