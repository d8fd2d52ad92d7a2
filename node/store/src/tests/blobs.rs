//! Values in parts: staged, committed, replaced, abandoned.

use bytes::{Bytes, BytesMut};

use super::kit::*;
use crate::command::*;
use crate::keys;
use crate::records::*;

fn value(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

fn blob_of(r: &Replica, namespace: &str, key: &str) -> BlobRef {
    match r.state.get_entry(namespace, key).unwrap().unwrap().content {
        Some(StoredContent::Blob(blob)) => blob,
        other => panic!("no blob: {other:?}"),
    }
}

fn read_all(r: &Replica, blob: &BlobRef) -> Option<Bytes> {
    let mut all = BytesMut::new();
    for part in 0..blob.parts {
        all.extend_from_slice(&r.state.read_part(blob, part).unwrap()?);
    }
    Some(all.freeze())
}

fn stage_value(r: &mut Replica, id: u8, value: &[u8]) {
    for op in stage_all(id, value) {
        let outcome = r.op(op);
        assert!(outcome.as_refused().is_none(), "{}", tell(&outcome));
    }
}

#[test]
fn a_large_value_comes_back_whole() {
    let mut r = Replica::new();
    let value = value(1, 3 * PART_BYTES + 17);
    stage_value(&mut r, 1, &value);
    assert_eq!(
        r.state.get_entry("a", "big").unwrap(),
        None,
        "nothing is seen before the put"
    );
    assert_eq!(
        tell(&r.op(put_staged("a", "big", 1, &value))),
        "created v1 1572881 bytes"
    );
    let blob = blob_of(&r, "a", "big");
    assert_eq!((blob.parts, blob.size), (4, value.len() as u64));
    assert_eq!(read_all(&r, &blob).unwrap(), value);
    assert_eq!((r.count(keys::UPLOAD), r.count(keys::GARBAGE)), (0, 0));
    r.assert_hash();
}

#[test]
fn parts_are_taken_in_order_and_once() {
    let mut r = Replica::new();
    let whole = vec![1; PART_BYTES];
    let mut story = String::new();
    let mut step = |r: &mut Replica, what: &str, op: Op| {
        let told = tell(&r.op(op));
        story.push_str(&format!("{what}: {told}\n"));
    };
    step(&mut r, "second first", stage(1, 1, &whole));
    step(&mut r, "first", stage(1, 0, &whole));
    step(&mut r, "first again", stage(1, 0, &whole));
    step(&mut r, "first with other bytes", stage(1, 0, b"x"));
    step(&mut r, "third", stage(1, 2, &whole));
    step(&mut r, "short second", stage(1, 1, b"end"));
    step(&mut r, "one after the end", stage(1, 2, b"more"));
    step(&mut r, "empty", stage(1, 2, b""));
    step(&mut r, "too large", stage(2, 0, &vec![0; PART_BYTES + 1]));
    let Op::StagePart(part) = stage(1, 2, b"x") else {
        unreachable!()
    };
    step(
        &mut r,
        "bad id",
        Op::StagePart(StagePart {
            upload_id: Bytes::from_static(b"short"),
            ..part
        }),
    );
    step(&mut r, "put of less", put_staged("a", "k", 1, b"x"));
    step(&mut r, "put of nothing", put_staged("a", "k", 9, b"x"));
    insta::assert_snapshot!(story, @"
    second first: refused StageMissing: part 0 is missing
    first: staged 524288 bytes
    first again: staged 524288 bytes
    first with other bytes: refused Invalid: part 0 came before with other bytes
    third: refused StageMissing: part 1 is missing
    short second: staged 524291 bytes
    one after the end: refused Invalid: part 1 was short and so the last
    empty: refused Invalid: a part has 1 to 524288 bytes
    too large: refused Invalid: a part has 1 to 524288 bytes
    bad id: refused Invalid: an upload id has 16 bytes
    put of less: refused StageMissing: 524291 of 1 bytes are staged
    put of nothing: refused StageMissing: nothing is staged under this upload id
    ");
    r.assert_hash();
}

#[test]
fn an_upload_id_is_not_used_twice() {
    let mut r = Replica::new();
    stage_value(&mut r, 1, b"one");
    r.op(put_staged("a", "k", 1, b"one"));
    assert_eq!(
        tell(&r.op(stage(1, 0, b"two"))),
        "refused Invalid: the upload id was used before"
    );
    assert_eq!(read_all(&r, &blob_of(&r, "a", "k")).unwrap(), "one");
}

#[test]
fn a_replaced_value_stays_a_minute_for_its_readers_and_then_goes_piece_by_piece() {
    let mut r = Replica::new();
    let first = value(1, 20 * PART_BYTES);
    stage_value(&mut r, 1, &first);
    r.op(put_staged("a", "k", 1, &first));
    let old = blob_of(&r, "a", "k");
    r.op(put("a", "k", "small now"));
    r.wait(58 * SECOND);
    r.op(put("a", "x", "1"));
    assert_eq!(
        read_all(&r, &old).unwrap(),
        first,
        "a reader was cut off within the minute"
    );
    let mut left = Vec::new();
    for _ in 0..4 {
        r.op(put("a", "x", "1"));
        left.push(r.count(keys::PART));
    }
    assert_eq!(left, [12, 4, 0, 0], "the work of one entry is not bounded");
    assert_eq!(r.count(keys::GARBAGE), 0);
    r.assert_hash();
}

#[test]
fn an_abandoned_upload_goes_after_an_hour_without_a_part() {
    let mut r = Replica::new();
    let part = vec![1; PART_BYTES];
    r.op(stage(1, 0, &part));
    r.wait(50 * 60 * SECOND);
    r.op(stage(1, 1, &part));
    // An hour after the first part, but not after the last.
    r.wait(30 * 60 * SECOND);
    r.op(put("a", "x", "1"));
    assert_eq!(
        (
            r.count(keys::PART),
            r.count(keys::UPLOAD),
            r.count(keys::GARBAGE)
        ),
        (2, 1, 1)
    );
    r.wait(31 * 60 * SECOND);
    r.op(put("a", "x", "2"));
    assert_eq!(
        (
            r.count(keys::PART),
            r.count(keys::UPLOAD),
            r.count(keys::GARBAGE)
        ),
        (0, 0, 0)
    );
    assert!(tell(&r.op(put_staged("a", "k", 1, &part))).starts_with("refused StageMissing"));
    r.assert_hash();
}

#[test]
fn parts_of_a_refused_put_go_at_once() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    r.op(stage(1, 0, b"value"));
    let Op::Put(mut staged) = put_staged("a", "k", 1, b"value") else {
        unreachable!()
    };
    staged.precondition = Some(Precondition::absent());
    assert!(r.op(Op::Put(staged)).as_refused().is_some());
    assert_eq!(r.count(keys::UPLOAD), 0);
    r.op(put("a", "x", "1"));
    assert_eq!((r.count(keys::PART), r.count(keys::GARBAGE)), (0, 0));
    r.assert_hash();
}

#[test]
fn a_deleted_large_value_leaves_nothing() {
    let mut r = Replica::new();
    let value = value(3, PART_BYTES + 1);
    stage_value(&mut r, 1, &value);
    r.op(put_staged("a", "k", 1, &value));
    r.op(delete("a", "k"));
    r.wait(61 * SECOND);
    r.op(put("a", "x", "1"));
    assert_eq!((r.count(keys::PART), r.count(keys::GARBAGE)), (0, 0));
    r.assert_hash();
}
