//! Two operators who do not know of each other: one after the other, and both at one moment. Never two lives (I13).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use confman_tests::cluster::{Cluster, PATIENCE, Plan};
use confman_tests::restore::life_object;
use confman_tests::store::ConditionalWrites;
use confman_tests::wait::wait_until;
use serde_json::Value;

use super::kit::*;
use super::returning::without_store;

/// How often both begin at one moment.
const ROUNDS: usize = 8;

/// Two directories and the store as they were, to be put back for another round.
struct Before {
    kept: Vec<(PathBuf, PathBuf)>,
}

impl Before {
    fn of(cluster: &Cluster, nodes: &[usize]) -> anyhow::Result<Self> {
        let dir = cluster.dir()?;
        let nodes = nodes
            .iter()
            .map(|node| cluster.node(*node).data_dir.clone());
        let kept = nodes
            .chain([dir.join("s3/confman")])
            .map(|place| {
                let copy = place.with_extension("before");
                copy_dir(&place, &copy)?;
                Ok((place, copy))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { kept })
    }

    fn put_back(&self) -> anyhow::Result<()> {
        for (place, copy) in &self.kept {
            std::fs::remove_dir_all(place)?;
            copy_dir(copy, place)?;
        }
        Ok(())
    }
}

/// Which of these nodes acknowledge a write within a while that begins with the first that is acknowledged.
async fn who_writes(
    cluster: &Cluster,
    nodes: &[usize],
    lasts: Duration,
) -> anyhow::Result<BTreeSet<usize>> {
    let mut writers = BTreeSet::new();
    let begin = Instant::now();
    let mut first = None::<Instant>;
    while first.is_none_or(|first| first.elapsed() < lasts) {
        anyhow::ensure!(begin.elapsed() < PATIENCE, "nobody writes");
        for node in nodes {
            if let Some(token) = try_write(cluster, *node, "who").await {
                assert_eq!(token.incarnation, 2, "{token}");
                writers.insert(*node);
                first = first.or(Some(Instant::now()));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(writers)
}

/// Both apply at one moment. Where the store keeps its word one of them is refused. Where it lets several win both may be told that it
/// is done; then the one whose claim was overwritten finds it out, and one life comes to write all the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn m19_i13_of_two_recoveries_at_one_moment_one_life_comes_to_write() -> anyhow::Result<()> {
    for (name, conditional) in [
        ("at-once", ConditionalWrites::Honoured),
        ("at-once-racing", ConditionalWrites::Racing),
    ] {
        let plan = Plan::new(name).conditional_writes(conditional);
        let cluster = plan.nodes(5).start().await?;
        let old = OldLife::lived(&cluster).await?;
        lose(&cluster, &[0, 1, 2])?;
        let plans = [
            planned(&cluster, &[3], "a.json").await?,
            planned(&cluster, &[4], "b.json").await?,
        ];
        let before = Before::of(&cluster, &[3, 4])?;
        let mut both = false;
        for round in 0..ROUNDS {
            before.put_back()?;
            let (a, b) = tokio::join!(
                carry_out(&cluster, "apply", "a.json", 3),
                carry_out(&cluster, "apply", "b.json", 4),
            );
            let ran = [a?, b?];
            let done = ran.iter().filter(|ran| ran.code == 0).count();
            eprintln!("round {round}: {done} done");
            for ran in ran.iter().filter(|ran| ran.code != 0) {
                let why = refusal(ran)?;
                assert_eq!((ran.code, why.as_str()), (3, "RECOVER_NEWER_LIFE"), "{ran}");
            }
            match conditional {
                ConditionalWrites::Honoured => assert_eq!(done, 1, "{ran:?}"),
                _ => assert!(done > 0, "{ran:?}"),
            }
            both = done == 2;
            // What the nodes make of it is of most interest where nobody was refused.
            if both {
                break;
            }
        }
        let claim = life_object(&cluster, 2, ".json")?.context("no claim")?;
        let claim: Value = serde_json::from_slice(&std::fs::read(claim)?)?;
        let claimed = &claim["recovery"]["planId"];
        let of_claim = |plan: &Value| plan["planId"] == *claimed;
        let at = plans.iter().position(of_claim).context("nobody's claim")?;
        let (writer, other) = (3 + at, 4 - at);
        cluster.node(3).start()?;
        cluster.node(4).start()?;
        wait_fenced(&cluster, other).await?;
        if both {
            // It has repaired its directory for a life of the same number, and holds the other back until somebody has looked at it.
            wait_until("one holds itself back", PATIENCE, || async {
                let (status, text) = readiness(&cluster, writer).await?;
                let held = status == 503 && text.contains("another recovery");
                anyhow::ensure!(held, "{status}: {text}");
                Ok(())
            })
            .await?;
            cluster.node(other).kill()?;
            let set_aside = cluster.drtool(["set-aside", "--yes"]);
            let set_aside = set_aside.arg(&cluster.node(other).data_dir);
            set_aside.run().await?.expect(0)?;
        }
        let writers = who_writes(&cluster, &[3, 4], Duration::from_secs(4)).await?;
        assert_eq!(writers, BTreeSet::from([writer]), "who writes");
        judge_new_life(&cluster, &[writer], &old, &plans[writer - 3]).await?;
        cluster.finish()?;
    }
    Ok(())
}

/// Two operators, two survivors, two plans. With the store the second is refused; without it neither life begins while
/// the other is there, and taking one back lets the other go.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn m19_i13_two_operators_with_two_plans_never_make_two_lives() -> anyhow::Result<()> {
    for (name, store) in [("operators-store", true), ("operators", false)] {
        let plan = if store {
            Plan::new(name)
        } else {
            without_store(name)
        };
        let cluster = plan.nodes(5).start().await?;
        let old = OldLife::lived(&cluster).await?;
        lose(&cluster, &[0, 1, 2])?;
        let plans = [
            planned(&cluster, &[3], "a.json").await?,
            planned(&cluster, &[4], "b.json").await?,
        ];
        carry_out(&cluster, "apply", "a.json", 3).await?.expect(0)?;
        let second = carry_out(&cluster, "apply", "b.json", 4).await?;
        if store {
            let ran = second.expect(3)?;
            assert_eq!(refusal(&ran)?, "RECOVER_NEWER_LIFE", "{ran}");
            cluster.node(3).start()?;
            first_write(&cluster, 2, "app/after").await?;
            // The other directory is as it was; its node starts, and learns that its time is over.
            cluster.node(4).start()?;
            wait_fenced(&cluster, 4).await?;
            judge_new_life(&cluster, &[3], &old, &plans[0]).await?;
            cluster.finish()?;
            continue;
        }
        second.expect(0)?;
        cluster.node(3).start()?;
        cluster.node(4).start()?;
        // Whoever was there first may begin; the other sees it and does not, nor do both.
        let held = wait_until("one holds itself back", PATIENCE, || async {
            for node in [3, 4] {
                let (status, text) = readiness(&cluster, node).await?;
                if status == 503 && text.contains("another recovery") {
                    return Ok(node);
                }
            }
            anyhow::bail!("neither does")
        })
        .await?;
        let other = 7 - held;
        for _ in 0..20 {
            let both = (
                try_write(&cluster, held, "x").await,
                try_write(&cluster, other, "x").await,
            );
            assert_eq!(both.0, None, "the one that holds itself back has written");
        }
        cluster.node(held).kill()?;
        let taken_back = if held == 3 { "a.json" } else { "b.json" };
        carry_out(&cluster, "undo", taken_back, held)
            .await?
            .expect(0)?;
        first_write(&cluster, 2, "app/after").await?;
        cluster.node(held).start()?;
        wait_fenced(&cluster, held).await?;
        judge_new_life(&cluster, &[other], &old, &plans[other - 3]).await?;
        cluster.finish()?;
    }
    Ok(())
}
