//! kill -9 of whoever carries out a change of the membership, at every place of it, and of the tool that asked for it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_node::killpoints::POINTS;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan, NAMESPACE};
use confman_tests::members::{PASSING, changed, member, members, named, node, voters};
use confman_tests::wait::wait_until;
use confman_tests::{agree, judge};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::kit::{DIR, Points, revived};

/// How often a command is run again before it must have come to its end: a leader may have died under each run.
const RUNS_MAX: usize = 30;

const BEGIN: [&str; 2] = ["membership::before-begin", "membership::after-begin"];
const ADMIT: [&str; 2] = ["membership::before-admit", "membership::after-admit"];
const LEARN: [&str; 2] = [
    "membership::before-add-learner",
    "membership::after-add-learner",
];
const PROMOTE: [&str; 2] = ["membership::before-promote", "membership::after-promote"];
const DEMOTE: [&str; 2] = ["membership::before-demote", "membership::after-demote"];
const ACTIVATE: [&str; 2] = ["membership::before-activate", "membership::after-activate"];
const HAND_OVER: [&str; 2] = [
    "membership::before-hand-over",
    "membership::after-hand-over",
];
const REMOVE_VOTER: [&str; 2] = [
    "membership::before-remove-voter",
    "membership::after-remove-voter",
];
/// Between the two entries of a change of voters; then the next leader finishes it.
const JOINT: &str = "membership::joint";
const FINISH: [&str; 2] = ["membership::before-finish", "membership::after-finish"];
const REMOVE: [&str; 2] = ["membership::before-remove", "membership::after-remove"];
const READDRESS: [&str; 2] = [
    "membership::before-readdress",
    "membership::after-readdress",
];
const END: [&str; 2] = ["membership::before-end", "membership::after-end"];

/// Where somebody has died for sure when the test of that name is over.
const ADDITION: [&[&str]; 9] = [
    &LEARN,
    &ACTIVATE,
    &END,
    &REMOVE,
    &BEGIN,
    &DEMOTE,
    &PROMOTE,
    &[JOINT],
    &FINISH,
];
const DEPARTURE: [&[&str]; 3] = [&HAND_OVER, &ADMIT, &REMOVE_VOTER];

/// What is known of every id that was ever given: it belongs to one admission for ever.
#[derive(Default)]
struct Ids(BTreeMap<u64, (String, String)>);

impl Ids {
    /// Reads the registry, the retired among them.
    async fn look(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let told = members(cluster).await?;
        let mut seen = 0;
        for told in told["nodes"].as_array().context("nodes")? {
            let id = told["id"].as_u64().context("an id")?;
            let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
            let holder = (text("name"), text("admittedAt"));
            let first = self.0.entry(id).or_insert_with(|| holder.clone());
            ensure!(*first == holder, "id {id} was {first:?} and is {holder:?}");
            seen += 1;
        }
        ensure!(
            seen == self.0.len(),
            "an id is forgotten: {told} and {:?}",
            self.0
        );
        Ok(())
    }
}

struct Town {
    cluster: Cluster,
    points: Points,
    ids: Ids,
    deaths: usize,
    /// Where somebody has died.
    died_at: BTreeSet<String>,
}

impl Town {
    /// Runs the command with these points armed: killed itself once, then again and again until it has come to its end, while
    /// whoever dies is started again. Then once more: there is nothing to do. A stage is armed when somebody has died at
    /// every point of the one before it, so that no later death keeps an earlier place from being come by. Gives the points at
    /// which somebody died.
    async fn change(
        &mut self,
        keep: &[usize],
        args: &[&str],
        stages: &[&[&str]],
    ) -> anyhow::Result<BTreeSet<String>> {
        let (first, later) = stages.split_first().context("no points")?;
        self.points.arm(first)?;
        let stages_armed = Cell::new(1);
        let arm = async {
            for stage in later {
                self.points.passed().await?;
                self.points.arm(stage)?;
                stages_armed.update(|armed| armed + 1);
            }
            self.points.passed().await
        };
        let run = async {
            self.killed_tool(args).await?;
            self.to_its_end(args).await
        };
        let work = async {
            tokio::pin!(arm, run);
            let mut armed = false;
            let ran = async {
                loop {
                    tokio::select! {
                        ran = &mut run => return ran,
                        all = &mut arm, if !armed => {
                            all?;
                            armed = true;
                        }
                    }
                }
            };
            let ended = tokio::time::timeout(PATIENCE * 2, ran).await;
            ended.context("the command does not come to its end")??;
            if !armed {
                // While one was dying another may have taken the next step before the next place was armed: such a place is
                // told of below, and the end must be the same all the same.
                let _ = tokio::time::timeout(PATIENCE / 6, arm).await;
            }
            wait_until("the change is over everywhere", PATIENCE, || async {
                let told = members(&self.cluster).await?;
                ensure!(!told["change"]["endedAt"].is_null(), "{told}");
                voters(&told)?;
                Ok(())
            })
            .await?;
            // Who leads may change at any time; who is a member may not.
            if args.first() != Some(&"transfer-leader") {
                let ran = member(&self.cluster, args).run().await?.expect(0)?;
                ensure!(ran.stderr.contains("nothing to do"), "{ran}");
            }
            Ok(())
        };
        let done = revived(&self.cluster, keep, work).await;
        let left = self.points.left()?;
        let ((), deaths) = done.with_context(|| format!("{args:?}, still armed: {left:?}"))?;
        if !left.is_empty() {
            eprintln!("{args:?}: nobody came by {left:?} while it was armed");
        }
        // Those of the first stage lie ready before the command begins, so whoever takes that step comes by. That is not certain of a later
        // stage (the step may be taken between the last death and its arming), nor of the place between two entries, which is watched
        // from outside and may be over before anybody looks. So each place is in a first stage somewhere, or its change is made again until
        // somebody came by: `end` asks for that.
        let missed: Vec<_> = first
            .iter()
            .filter(|point| **point != JOINT && left.contains(**point))
            .collect();
        ensure!(missed.is_empty(), "{args:?}: nobody came by {missed:?}");
        // Between two sets of voters there is no time to be sure of: `end` asks whether it was met once.
        ensure!(deaths >= 1 || *first == [JOINT], "no death at {stages:?}");
        self.deaths += deaths;
        self.ids.look(&self.cluster).await?;
        eprintln!("{args:?}: {deaths} deaths");
        let armed = stages.iter().take(stages_armed.get()).copied().flatten();
        let died_at: BTreeSet<String> = armed
            .filter(|point| !left.contains(**point))
            .map(|point| (*point).to_owned())
            .collect();
        self.died_at.extend(died_at.iter().cloned());
        Ok(died_at)
    }

    /// kill -9 of the tool when it has said the first thing about how it goes on.
    async fn killed_tool(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut child = member(&self.cluster, args).spawn()?;
        let stderr = child.stderr.take().context("stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let said = async {
            while let Some(line) = lines.next_line().await? {
                // Progress is indented; the plan before it has a head in each line.
                if line.starts_with("  ") && line.contains('(') {
                    break;
                }
            }
            anyhow::Ok(())
        };
        // It may have ended before, with an error: then the next run goes on.
        tokio::time::timeout(Duration::from_secs(20), said)
            .await
            .ok();
        child.kill().await.context("kill drtool")
    }

    /// The same command until it says that it is done.
    async fn to_its_end(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..RUNS_MAX {
            let ran = member(&self.cluster, args)
                .args(["--within", "60", "--timeout", "10"])
                .run()
                .await?;
            match ran.code {
                0 => return Ok(()),
                // Nobody could answer, or nobody knows what came of it: a leader died.
                6 | 7 => {}
                // A node is just dead: it would weaken the cluster now, and will not in a moment.
                3 if ran.stderr.contains("LESS_TOLERANCE")
                    || PASSING.iter().any(|code| ran.stderr.contains(code)) => {}
                _ => anyhow::bail!("{ran}"),
            }
            last = Some(ran);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        anyhow::bail!("it does not come to its end: {}", last.context("no run")?)
    }

    /// The machine comes, and is started again until it is taken in.
    fn start(&self, index: usize) -> anyhow::Result<()> {
        self.cluster.node(index).start()
    }

    /// The machine goes: its process, and its disk.
    fn clear(&self, index: usize) -> anyhow::Result<()> {
        let node = self.cluster.node(index);
        if node.pid().is_some() {
            node.kill()?;
        }
        node.wipe()
    }

    /// Gives the leadership of every group to a node, once these are ready.
    async fn lead_everything(&self, name: &str, ready: &[usize]) -> anyhow::Result<()> {
        for index in ready {
            self.cluster.wait_ready(*index).await?;
        }
        changed(&self.cluster, &["transfer-leader", name]).await?;
        Ok(())
    }
}

/// A cluster with kill points under load.
async fn town(plan: Plan) -> anyhow::Result<(Town, Load, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let points = Points::new(dir.path())?;
    let cluster = plan
        .env("CONFMAN_SHARDS", "2")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "400")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "50")
        .env(DIR, &points.dir().display().to_string())
        .start()
        .await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 2,
            readers: 1,
            pause: Duration::from_millis(20),
            ..LoadPlan::default()
        },
    );
    load.wait_progress(30, PATIENCE).await?;
    let town = Town {
        cluster,
        points,
        ids: Ids::default(),
        deaths: 0,
        died_at: BTreeSet::new(),
    };
    Ok((town, load, dir))
}

/// Those who vote now, the ids that were ever given, what the clients saw and what the nodes have are right, and somebody has died at each
/// of these places.
async fn end(
    town: Town,
    load: Load,
    vote: &[&str],
    ids: &[u64],
    places: &[&[&str]],
) -> anyhow::Result<()> {
    let mut missed = places.concat();
    missed.retain(|point| !town.died_at.contains(*point));
    ensure!(missed.is_empty(), "nobody died at {missed:?}");
    load.wait_progress(30, PATIENCE).await?;
    let told = members(&town.cluster).await?;
    assert_eq!(voters(&told)?, named(vote), "{told}");
    // None given twice, none given in vain.
    assert_eq!(town.ids.0.keys().copied().collect::<Vec<_>>(), ids);
    let history = load.stop().await?;
    judge::judge(&agree::running(&town.cluster), NAMESPACE, &history).await?;
    for group in [META, CONFIG, "config/1"] {
        agree::state_hashes(&town.cluster, group).await?;
    }
    eprintln!("{} deaths, {} operations", town.deaths, history.len());
    ensure!(town.deaths >= 10, "only {} deaths", town.deaths);
    town.cluster.finish()
}

/// That somebody really dies there is what each of the tests asks for at its end.
#[test]
fn i17_every_place_of_a_change_is_one_at_which_a_test_has_somebody_die() {
    let tried: BTreeSet<&str> = [&ADDITION[..], &DEPARTURE, &[&READDRESS]]
        .concat()
        .concat()
        .into_iter()
        .collect();
    let all = POINTS.iter().copied();
    let all: BTreeSet<&str> = all.filter(|p| p.starts_with("membership::")).collect();
    assert_eq!(tried, all);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i14_i17_kill_9_at_every_place_of_an_addition_comes_to_the_same_end()
-> anyhow::Result<()> {
    let (mut town, load, _points) = town(Plan::new("addition-kills").spares(1)).await?;
    let node4 = town.cluster.node(3).peer_addr.clone();
    let four = [0, 1, 2, 3];

    // A learner comes and goes: a member that never voted. What is written down of it comes when it has arrived in every group, so
    // nobody dies there before the others have come by.
    town.start(3)?;
    let learner = ["add", "node4", &node4, "--learner"];
    let settled = [LEARN, ACTIVATE, END].concat();
    town.change(&four, &learner, &[&settled]).await?;
    town.change(&four, &["remove", "node4", "--yes"], &[&REMOVE])
        .await?;
    town.clear(3)?;

    // A voter comes, at every place of it.
    town.start(3)?;
    let all = [&BEGIN[..], &ADMIT, &LEARN, &PROMOTE, &ACTIVATE, &END];
    town.change(&four, &["add", "node4", &node4], &all).await?;
    town.change(&four, &["demote", "node4", "--yes"], &[&DEMOTE])
        .await?;
    town.change(&four, &["promote", "node4"], &[&PROMOTE])
        .await?;

    // A leader dies half way, with both sets of voters committed: the next one finishes, or dies of that in turn.
    let demote = ["demote", "node4", "--yes"];
    let halfway = [&[JOINT][..], &FINISH];
    let mut finished = false;
    for args in [&demote[..], &["promote", "node4"]]
        .into_iter()
        .cycle()
        .take(6)
    {
        let died_at = town.change(&four, args, &halfway).await?;
        finished |= FINISH.iter().all(|point| died_at.contains(*point));
        if finished && args[0] == "promote" {
            break;
        }
    }
    ensure!(finished, "no leader ever found a change half way");
    for index in four {
        town.cluster.wait_ready(index).await?;
    }
    // Three at birth, node4 twice.
    let vote = ["node1", "node2", "node3", "node4"];
    end(town, load, &vote, &[1, 2, 3, 4, 5], &ADDITION).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i14_i17_kill_9_at_every_place_of_a_departure_comes_to_the_same_end()
-> anyhow::Result<()> {
    let plan = Plan::new("departure-kills").nodes(4).spares(1);
    let (mut town, load, _points) = town(plan).await?;
    let node5 = town.cluster.node(4).peer_addr.clone();
    let four = [0, 1, 2, 3];

    // Who leads everything hands over.
    for (to, point) in [("node2", HAND_OVER[0]), ("node3", HAND_OVER[1])] {
        town.lead_everything("node1", &four).await?;
        town.change(&four, &["transfer-leader", to], &[&[point]])
            .await?;
    }

    // One takes the place of another, which leads everything.
    town.lead_everything("node1", &four).await?;
    town.start(4)?;
    let replace = ["replace", "node1", "node5", &node5, "--yes"];
    let all = [&ADMIT[..], &LEARN, &PROMOTE, &END];
    town.change(&[0, 1, 2, 3, 4], &replace, &all).await?;
    town.clear(0)?;
    load.wait_progress(20, PATIENCE).await?;

    // And a voter goes that leads everything.
    let rest = [1, 2, 3, 4];
    town.lead_everything("node4", &rest).await?;
    let remove = ["remove", "node4", "--yes"];
    town.change(&rest, &remove, &[&REMOVE_VOTER, &END]).await?;
    town.clear(3)?;
    for index in [1, 2, 4] {
        town.cluster.wait_ready(index).await?;
    }
    let told = members(&town.cluster).await?;
    assert_eq!(node(&told, "node1").unwrap()["state"], "retired");
    let vote = ["node2", "node3", "node5"];
    end(town, load, &vote, &[1, 2, 3, 4, 5], &DEPARTURE).await
}

/// A node comes back at another address, and whoever tells the groups of it dies before and after.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i17_kill_9_where_the_address_of_a_node_is_changed_comes_to_the_same_end()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let points = Points::new(dir.path())?;
    let cluster = Plan::new("readdress-kills")
        .env(DIR, &points.dir().display().to_string())
        .start()
        .await?;
    cluster.fill("app", "k", 20, "value").await?;
    let moved = cluster.node(2);
    let new = moved.peer_addr.replace("127.0.0.1", "localhost");
    moved.kill()?;
    points.arm(&READDRESS)?;
    moved.set_env("CONFMAN_PEER_ADVERTISE", &new);
    moved.start()?;
    let work = async {
        wait_until("every group knows the new address", PATIENCE, || async {
            for group in [META, CONFIG] {
                for index in 0..3 {
                    let status = cluster.group(index, group).await?;
                    let members = status["members"].as_array().context("members")?;
                    ensure!(members.len() == 3, "{status}");
                    let node3 = members.iter().find(|m| m["name"] == "node3");
                    ensure!(
                        node3.is_some_and(|m| m["peerAddr"] == new.as_str()),
                        "{status}"
                    );
                }
            }
            Ok(())
        })
        .await?;
        cluster.wait_all_ready().await
    };
    let ((), deaths) = revived(&cluster, &[0, 1, 2], work).await?;
    let left = points.left()?;
    ensure!(
        left.is_empty() && deaths == 2,
        "{deaths} deaths, left {left:?}"
    );
    cluster
        .write("app/after", &serde_json::json!("moved"))
        .await?;
    for group in [META, CONFIG] {
        agree::state_hashes(&cluster, group).await?;
    }
    cluster.finish()
}
