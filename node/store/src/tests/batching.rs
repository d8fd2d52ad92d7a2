//! I2: the same commands in the same order give the same state, however they come.

use confman_snapshot::Record;
use proptest::collection::vec;
use proptest::prelude::*;

use super::kit::*;
use crate::command::*;

/// A small world, so that commands meet each other.
fn any_op() -> impl Strategy<Value = Op> {
    let namespace = || prop::sample::select(vec!["a", "a/b", "a/b/c", "a-b", "d"]);
    let key = || prop::sample::select(vec!["k1", "k2", "k3"]);
    let condition = prop_oneof![
        3 => Just(None),
        1 => (1..5u64).prop_map(|v| Some(Precondition::version_is(v))),
        1 => Just(Some(Precondition::exists())),
        1 => Just(Some(Precondition::absent())),
    ];
    prop_oneof![
        6 => (namespace(), key(), 0..4u8, condition, any::<bool>()).prop_map(|(n, k, v, condition, skip)| {
            let Op::Put(mut p) = put_if(n, k, &"v".repeat(v as usize * 1500), condition) else { unreachable!() };
            p.skip_unchanged = skip;
            Op::Put(p)
        }),
        3 => (namespace(), key()).prop_map(|(n, k)| delete(n, k)),
        1 => namespace().prop_map(create),
        1 => namespace().prop_map(drop_namespace),
        2 => (0..3u8, 0..3u32).prop_map(|(id, seq)| stage(id, seq, &vec![id; PART_BYTES])),
        1 => (0..3u8).prop_map(|id| stage(id, 1, b"end")),
        2 => (namespace(), key(), 0..3u8, 0..3usize).prop_map(|(n, k, id, parts)| {
            put_staged(n, k, id, &vec![id; parts * PART_BYTES])
        }),
        1 => Just(Op::SnapshotsMarked(SnapshotIds { ids: vec!["none".to_owned()] })),
        1 => Just(Op::ActivateNode(ActivateNode { id: 1 })),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let key = prop_oneof![3 => Just(""), 1 => prop::sample::select(vec!["i1", "i2", "i3"])];
    // Steps that make uploads and readers due, and clocks that go back.
    let step = prop_oneof![6 => -2..5i64, 1 => Just(70), 1 => Just(4000), 1 => Just(90_000)];
    (any_op(), key, step).prop_map(|(op, key, step)| {
        let mut command = command(0, op);
        command.time_us = step * SECOND;
        command.idempotency_key = key.to_owned();
        command
    })
}

fn any_history() -> impl Strategy<Value = Vec<Command>> {
    vec(any_command(), 1..60).prop_map(|mut commands| {
        let mut now = 1_700_000_000 * SECOND;
        for command in &mut commands {
            now += command.time_us;
            command.time_us = now;
        }
        commands
    })
}

/// All records of a replica.
fn records(r: &Replica) -> Vec<Record> {
    let view = r.state.open_view(0).unwrap();
    view.records.map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i2_batching_changes_nothing(history in any_history(), sizes in vec(1..12usize, 1..8), restart in 0..60usize) {
        let mut one = Replica::new();
        let singly: Vec<Outcome> = history.iter().map(|c| one.apply(c.clone())).collect();
        one.assert_hash();

        let mut other = Replica::new();
        let mut batched = Vec::new();
        let mut rest = history.as_slice();
        for size in sizes.iter().cycle() {
            let (batch, after) = rest.split_at((*size).min(rest.len()));
            batched.extend(other.batch(batch.to_vec()));
            other.assert_hash();
            if batched.len() >= restart {
                other = other.reopen();
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(singly, batched);
        prop_assert_eq!(one.state.stats(), other.state.stats());
        prop_assert_eq!(records(&one), records(&other));
    }
}

#[test]
fn i2_the_hash_is_that_of_the_position_and_not_of_the_batch() {
    let mut one = Replica::new();
    let mut other = Replica::new();
    let commands: Vec<Command> = (0..20)
        .map(|n| command(n * SECOND, put("a", &format!("k{}", n % 3), &n.to_string())))
        .collect();
    let mut hashes = Vec::new();
    for command in &commands {
        one.apply(command.clone());
        hashes.push(one.state.stats().state_hash);
    }
    other.batch(commands[..13].to_vec());
    assert_eq!(other.state.stats().state_hash, hashes[12]);
    other.batch(commands[13..].to_vec());
    assert_eq!(other.state.stats().state_hash, hashes[19]);
    // Each hash is another one.
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

#[test]
#[ignore = "a figure, not a promise"]
fn puts_applied_a_second() {
    for batch in [1, 32, 256] {
        let mut r = Replica::new();
        let commands: Vec<Command> = (0..4096)
            .map(|n| {
                command(
                    n * SECOND,
                    put("a", &format!("k{}", n % 1000), &"v".repeat(256)),
                )
            })
            .collect();
        let began = std::time::Instant::now();
        for commands in commands.chunks(batch) {
            r.batch(commands.to_vec());
        }
        println!(
            "batches of {batch}: {:.0} a second",
            4096.0 / began.elapsed().as_secs_f64()
        );
        let began = std::time::Instant::now();
        r.state.flush_durable().unwrap();
        println!("  made durable in {:?}", began.elapsed());
    }
}
