//! A retried command is applied once and answers as it did.

use super::kit::*;
use crate::IDEMPOTENCY_KEPT;
use crate::command::*;
use crate::keys;

#[test]
fn a_retry_answers_as_the_first_did() {
    let mut r = Replica::new();
    let mut story = String::new();
    let mut step = |r: &mut Replica, what: &str, key: &str, print: &str, op: Op| {
        let outcome = r.once(key, print, op);
        let at = outcome
            .replayed_from
            .map_or_else(String::new, |p| format!(" of {}", p.index));
        story.push_str(&format!("{what}: {}{at}\n", tell(&outcome)));
    };
    step(&mut r, "put", "k1", "p", put("a", "k", "1"));
    step(&mut r, "retry", "k1", "p", put("a", "k", "1"));
    step(&mut r, "other request", "k1", "q", put("a", "k", "2"));
    step(&mut r, "other key", "k2", "p", put("a", "k", "2"));
    step(&mut r, "retry of the first", "k1", "p", put("a", "k", "1"));
    step(&mut r, "delete nothing", "k3", "p", delete("a", "none"));
    step(&mut r, "put it", "k4", "p", put("a", "none", "1"));
    step(&mut r, "retry of delete", "k3", "p", delete("a", "none"));
    step(&mut r, "namespace", "k5", "p", create("b"));
    step(&mut r, "retry of namespace", "k5", "p", create("b"));
    insta::assert_snapshot!(story, @"
    put: created v1 1 bytes
    retry: created v1 1 bytes (again) of 1
    other request: refused IdempotencyKeyReused: the idempotency key was used for another request
    other key: changed v2 1 bytes
    retry of the first: created v1 1 bytes (again) of 1
    delete nothing: refused NotFound: there is no such entry
    put it: created v1 1 bytes
    retry of delete: refused NotFound: there is no such entry (again) of 6
    namespace: namespace created
    retry of namespace: namespace created (again) of 9
    ");
    assert_eq!(r.version("a", "k"), Some(2));
    let known = r.state.idempotency("ann", "k1").unwrap().unwrap();
    assert_eq!(known.fingerprint, "p");
    assert_eq!(known.outcome.replayed_from.unwrap().index, 1);
    assert_eq!(r.state.idempotency("bob", "k1").unwrap(), None);
    r.assert_hash();
}

#[test]
fn the_same_key_of_another_actor_is_another_key() {
    let mut r = Replica::new();
    r.once("k", "p", put("a", "k", "1"));
    let mut theirs = command(r.clock_us, put("a", "k", "2"));
    theirs.actor = "bob".to_owned();
    theirs.idempotency_key = "k".to_owned();
    assert_eq!(tell(&r.apply(theirs)), "changed v2 1 bytes");
}

#[test]
fn what_a_retry_can_do_better_is_not_remembered() {
    let mut r = Replica::new();
    let value = vec![7; PART_BYTES + 1];
    assert!(
        tell(&r.once("k", "p", put_staged("a", "k", 1, &value)))
            .starts_with("refused StageMissing")
    );
    for op in stage_all(2, &value) {
        r.op(op);
    }
    assert_eq!(
        tell(&r.once("k", "p", put_staged("a", "k", 2, &value))),
        "created v1 524289 bytes"
    );
}

#[test]
fn a_retry_does_not_keep_the_parts_that_it_brought() {
    let mut r = Replica::new();
    let value = vec![7; 10];
    for id in [1, 2] {
        r.op(stage(id, 0, &value));
        let outcome = r.once("k", "p", put_staged("a", "k", id, &value));
        assert!(tell(&outcome).starts_with("created v1 10 bytes"));
    }
    r.op(put("a", "other", "1"));
    assert_eq!(
        (
            r.count(keys::PART),
            r.count(keys::UPLOAD),
            r.count(keys::GARBAGE)
        ),
        (1, 0, 0)
    );
    r.assert_hash();
}

#[test]
fn keys_are_forgotten_after_a_day() {
    let mut r = Replica::new();
    r.once("old", "p", put("a", "k", "1"));
    r.wait(24 * 3600 * SECOND - 3 * SECOND);
    r.once("young", "p", put("a", "k", "2"));
    assert_eq!(
        tell(&r.once("old", "p", put("a", "k", "1"))),
        "created v1 1 bytes (again)"
    );
    // The day is over for the old one.
    assert_eq!(
        tell(&r.once("old", "p", put("a", "k", "3"))),
        "changed v3 1 bytes"
    );
    assert_eq!(
        tell(&r.once("young", "p", put("a", "k", "2"))),
        "changed v2 1 bytes (again)"
    );

    r.assert_hash();
}

/// As many commands with keys `n0`, `n1`, ... as in two seconds of a full load.
fn burst(r: &mut Replica, count: usize) {
    let commands = (0..count)
        .map(|n| {
            let mut c = command(r.clock_us, put("b", &format!("k{}", n % 10), "v"));
            c.idempotency_key = format!("n{n}");
            c
        })
        .collect::<Vec<_>>();
    for batch in commands.chunks(512) {
        r.batch(batch.to_vec());
    }
}

#[test]
fn a_burst_does_not_push_a_key_out_that_may_still_be_retried() {
    let mut r = Replica::new();
    r.once("mine", "p", put("a", "k", "1"));
    burst(&mut r, 10_050);
    // As long as our clients send it again, and the longest write timeout there is.
    r.wait(13 * 60 * SECOND + 600 * SECOND);
    r.op(put("a", "k", "2"));
    let again = tell(&r.once("mine", "p", put("a", "k", "1")));
    assert_eq!(again, "created v1 1 bytes (again)");
    assert_eq!(r.count(keys::IDEMPOTENCY), 10_051);
    r.assert_hash();
}

#[test]
fn what_a_burst_left_goes_with_the_writes_after_it() {
    let mut r = Replica::new();
    burst(&mut r, 10_050);
    r.wait(IDEMPOTENCY_KEPT.as_micros() as i64);
    for n in 0..4 {
        r.op(put("a", "k", &n.to_string()));
    }
    assert_eq!(r.count(keys::IDEMPOTENCY), 10_000);
    assert_eq!(r.count(keys::IDEMPOTENCY_ORDER), 10_000);
    assert!(r.state.idempotency("ann", "n49").unwrap().is_none());
    assert!(r.state.idempotency("ann", "n50").unwrap().is_some());
    r.assert_hash();
}
