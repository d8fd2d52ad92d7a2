//! Stories of entries: what commands answer, what stays.

use bytes::Bytes;
use confman_snapshot::value_hash;

use super::kit::*;
use crate::command::*;
use crate::keys;
use crate::names::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::records::*;

#[test]
fn the_life_of_an_entry() {
    let mut r = Replica::new();
    let mut story = String::new();
    let mut step = |r: &mut Replica, what: &str, op: Op| {
        let outcome = r.op(op);
        story.push_str(&format!("{what}: {}\n", tell(&outcome)));
    };
    step(&mut r, "put", put("app/db", "url", "one"));
    step(&mut r, "put again", put("app/db", "url", "two"));
    step(
        &mut r,
        "if version 1",
        put_if("app/db", "url", "x", Some(Precondition::version_is(1))),
    );
    step(
        &mut r,
        "if version 2",
        put_if("app/db", "url", "three", Some(Precondition::version_is(2))),
    );
    step(
        &mut r,
        "if absent",
        put_if("app/db", "url", "x", Some(Precondition::absent())),
    );
    step(
        &mut r,
        "other if exists",
        put_if("app/db", "user", "x", Some(Precondition::exists())),
    );
    step(
        &mut r,
        "other if absent",
        put_if("app/db", "user", "me", Some(Precondition::absent())),
    );
    step(&mut r, "delete", delete("app/db", "url"));
    step(&mut r, "delete again", delete("app/db", "url"));
    step(
        &mut r,
        "if version 3, gone",
        put_if("app/db", "url", "x", Some(Precondition::version_is(3))),
    );
    step(&mut r, "put after delete", put("app/db", "url", "four"));
    insta::assert_snapshot!(story, @"
    put: created v1 3 bytes
    put again: changed v2 3 bytes
    if version 1: refused PreconditionFailed: expected version 1, it has version 2 [v2]
    if version 2: changed v3 5 bytes
    if absent: refused PreconditionFailed: expected no entry, it has version 3 [v3]
    other if exists: refused PreconditionFailed: expected an entry, there is none
    other if absent: created v1 2 bytes
    delete: deleted v3
    delete again: refused NotFound: there is no such entry
    if version 3, gone: refused PreconditionFailed: expected version 3, there is none
    put after delete: created v4 4 bytes
    ");
    r.assert_hash();
}

#[test]
fn an_entry_holds_who_when_and_what() {
    let mut r = Replica::new();
    r.op(put("a", "k", "one"));
    let first = r.clock_us;
    r.wait(5 * SECOND);
    let mut second = command(r.clock_us + SECOND, put("a", "k", "two"));
    second.actor = "bob".to_owned();
    r.apply(second);
    let record = r.state.get_entry("a", "k").unwrap().unwrap();
    let head = record.head.unwrap();
    assert_eq!((head.version, head.size), (2, 3));
    assert_eq!(head.value_type(), ValueType::String);
    assert_eq!(head.hash, Bytes::copy_from_slice(&value_hash(b"two")));
    assert_eq!(
        (head.created_us, head.updated_us),
        (first, first + 6 * SECOND)
    );
    assert_eq!(
        (head.created_by.as_str(), head.updated_by.as_str()),
        ("ann", "bob")
    );
    assert_eq!(
        record.content,
        Some(StoredContent::Inline(Bytes::from_static(b"two")))
    );
}

#[test]
fn the_clock_of_a_group_never_goes_back() {
    let mut r = Replica::new();
    r.apply(command(1_000, put("a", "k", "1")));
    r.apply(command(500, put("a", "k", "2")));
    r.apply(command(1_000, put("a", "k", "3")));
    let head = r.state.get_entry("a", "k").unwrap().unwrap().head.unwrap();
    assert_eq!(head.updated_us, 1_002);
    // And it does not overflow when a leader's clock is at the end of time.
    r.apply(command(i64::MAX, put("a", "k", "4")));
    r.apply(command(7, put("a", "k", "5")));
    let head = r.state.get_entry("a", "k").unwrap().unwrap().head.unwrap();
    assert_eq!((head.version, head.updated_us), (5, i64::MAX));
    r.assert_hash();
}

#[test]
fn the_same_value_makes_no_version_when_asked() {
    let mut r = Replica::new();
    let skip = |r: &mut Replica, value: &str, value_type: ValueType| {
        let Op::Put(mut p) = put("a", "k", value) else {
            unreachable!()
        };
        p.skip_unchanged = true;
        p.value_type = value_type.into();
        tell(&r.op(Op::Put(p)))
    };
    assert_eq!(skip(&mut r, "x", ValueType::String), "created v1 1 bytes");
    let audits = r.count(keys::AUDIT);
    assert_eq!(skip(&mut r, "x", ValueType::String), "unchanged v1 1 bytes");
    assert_eq!(
        r.count(keys::AUDIT),
        audits,
        "what changed nothing was audited"
    );
    assert_eq!(skip(&mut r, "x", ValueType::Json), "changed v2 1 bytes");
    assert_eq!(skip(&mut r, "y", ValueType::Json), "changed v3 1 bytes");
    assert_eq!(tell(&r.op(put("a", "k", "y"))), "changed v4 1 bytes");
}

#[test]
fn tombstones_outlive_their_namespace() {
    let mut r = Replica::new();
    r.op(put("a/b", "k", "1"));
    r.op(put("a/b", "k", "2"));
    r.op(drop_namespace("a"));
    assert_eq!(
        r.state.get_tombstone("a/b", "k").unwrap().unwrap().version,
        2
    );
    assert_eq!(tell(&r.op(put("a/b", "k", "3"))), "created v3 1 bytes");
    assert_eq!(r.state.get_tombstone("a/b", "k").unwrap(), None);
    r.assert_hash();
}

#[test]
fn names_that_are_not_allowed_are_refused_alike() {
    let mut r = Replica::new();
    let long_segment = "x".repeat(256);
    let long = "x/".repeat(NAMESPACE_BYTES_MAX / 2) + "x";
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let before = r.state.stats();
    for namespace in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/..",
        "a\0b",
        "a\nb",
        &long_segment,
        &long,
    ] {
        let outcome = r.op(put(namespace, "k", "v"));
        assert_eq!(
            outcome.as_refused().unwrap().code(),
            RefusalCode::Invalid,
            "{namespace:?}"
        );
        let outcome = r.op(create(namespace));
        assert_eq!(
            outcome.as_refused().unwrap().code(),
            RefusalCode::Invalid,
            "{namespace:?}"
        );
    }
    for key in ["", "a\0", "\u{7f}", &long_key] {
        let outcome = r.op(put("a", key, "v"));
        assert_eq!(
            outcome.as_refused().unwrap().code(),
            RefusalCode::Invalid,
            "{key:?}"
        );
        let outcome = r.op(delete("a", key));
        assert_eq!(
            outcome.as_refused().unwrap().code(),
            RefusalCode::Invalid,
            "{key:?}"
        );
    }
    for (namespace, key) in [("a", "b/c"), ("ä ö/ü", "…"), ("a.b/.c", "..")] {
        assert!(
            r.op(put(namespace, key, "v")).as_refused().is_none(),
            "{namespace:?} {key:?}"
        );
        assert_eq!(r.version(namespace, key), Some(1));
    }
    assert!(before.applied < r.state.stats().applied);
    r.assert_hash();
}

#[test]
fn entries_are_listed_in_pages_of_their_own_namespace() {
    let mut r = Replica::new();
    for namespace in ["a", "a-b", "a/b", "aa"] {
        for key in ["3", "1", "2"] {
            r.op(put(namespace, key, namespace));
        }
    }
    let keys_of = |after: Option<&str>, limit| -> Vec<String> {
        let items = r.state.list_entries("a", after, limit).unwrap();
        assert!(items.iter().all(|item| item.namespace == "a"));
        items.into_iter().map(|item| item.key).collect()
    };
    assert_eq!(keys_of(None, 2), ["1", "2"]);
    assert_eq!(keys_of(Some("2"), 2), ["3"]);
    assert_eq!(keys_of(Some("15"), 2), ["2", "3"]);
    assert_eq!(keys_of(Some("3"), 2), [""; 0]);
    assert_eq!(keys_of(None, 0), [""; 0]);
    assert_eq!(r.state.count_keys("a").unwrap(), 3);
}

#[test]
fn a_value_that_is_too_large_inline_is_refused() {
    let mut r = Replica::new();
    let value = "x".repeat(INLINE_MAX + 1);
    assert_eq!(
        r.op(put("a", "k", &value)).as_refused().unwrap().code(),
        RefusalCode::TooLarge
    );
    assert!(r.op(put("a", "k", &value[1..])).as_refused().is_none());
    assert_eq!(r.version("a", "k"), Some(1));
}

#[test]
fn an_entry_of_a_newer_version_stops_the_replica_and_changes_nothing() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let before = r.state.stats();
    let Op::Put(good) = put("a", "k", "2") else {
        unreachable!()
    };
    let strange = [
        Command {
            op: None,
            ..command(1, put("a", "k", "x"))
        },
        command(
            1,
            Op::Put(Put {
                content: None,
                ..good.clone()
            }),
        ),
        command(
            1,
            Op::Put(Put {
                value_type: 99,
                ..good.clone()
            }),
        ),
        command(
            1,
            Op::Put(Put {
                precondition: Some(Precondition { condition: None }),
                ..good
            }),
        ),
    ];
    for command in strange {
        // A good command before it in the same batch goes with it.
        let batch = vec![
            entry(r.next, super::kit::command(1, put("a", "k", "2"))),
            entry(r.next + 1, command),
        ];
        let error = r.machine.apply_now(batch).unwrap_err();
        assert!(
            error.to_string().contains("unknown to this version"),
            "{error}"
        );
        assert_eq!(r.state.stats(), before);
        assert_eq!(r.version("a", "k"), Some(1));
    }
    r.assert_hash();
}

#[test]
fn i12_an_entry_out_of_order_is_refused() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    for index in [r.next - 1, r.next + 1] {
        let error = r
            .machine
            .apply_now(vec![entry(index, command(1, put("a", "k", "2")))])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the entry applied before it is 1"),
            "{error}"
        );
    }
    assert_eq!(r.version("a", "k"), Some(1));
}
