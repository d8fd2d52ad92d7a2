//! D07: a state database that is not what was written is noticed before it is believed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kit::*;
use super::purge::copy_dir;

/// What became of opening a damaged database and looking at all of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Found {
    /// The damaged bytes are of no use to anybody.
    Nothing,
    Refused,
    HashDiffers,
    Panicked,
}

fn look(dir: &std::path::Path) -> Found {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let (_log, _machine, state) = match open(dir) {
            Ok(parts) => parts,
            Err(error) => {
                assert!(error.to_string().contains("state.redb"), "{error}");
                return Found::Refused;
            }
        };
        match state.rehash() {
            Ok((_, kept, found)) if kept == found => Found::Nothing,
            Ok(_) => Found::HashDiffers,
            Err(_) => Found::Refused,
        }
    }));
    opened.unwrap_or(Found::Panicked)
}

#[test]
fn d07_flipped_bits_in_the_state_are_noticed() {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    for n in 0..50 {
        r.op(put("a", &format!("k{n}"), &"v".repeat(2000)));
    }
    r.state.flush_durable().unwrap();
    let image = tempfile::tempdir().unwrap();
    let Replica {
        dir,
        machine,
        state,
        log,
        ..
    } = r;
    drop((machine, state, log));
    copy_dir(dir.path(), image.path());
    let file = paths(image.path(), &confman_snapshot::model::GroupId::config(0)).state();
    let whole = std::fs::read(&file).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..120usize {
        let at = (round * 7919 * 131) % whole.len();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        std::fs::write(&file, &bytes).unwrap();
        *counts.entry(look(image.path())).or_insert(0) += 1;
    }
    assert_eq!(counts.get(&Found::Panicked), None, "{counts:?}");
    assert!(counts[&Found::HashDiffers] > 20, "{counts:?}");
}

#[test]
fn d07_a_flipped_bit_in_what_is_no_record_is_refused_at_open() {
    use crate::state::SYSTEM;
    let mut r = Replica::new();
    r.log.begin_if_empty();
    r.op(put("a", "k", "v"));
    let Replica {
        dir,
        machine,
        state,
        log,
        ..
    } = r;
    drop((machine, state, log));
    let file = paths(dir.path(), &confman_snapshot::model::GroupId::config(0)).state();
    let change = |key: &str, at: usize| {
        let database = redb::Database::open(&file).unwrap();
        let tx = database.begin_write().unwrap();
        {
            let mut table = tx.open_table(SYSTEM).unwrap();
            let mut value = redb::ReadableTable::get(&table, key)
                .unwrap()
                .unwrap()
                .value()
                .to_vec();
            let at = at % value.len();
            value[at] ^= 1;
            table.insert(key, value.as_slice()).unwrap();
        }
        tx.commit().unwrap();
    };
    for (key, at) in [
        ("applied", 1),
        ("applied", 3),
        ("applied", usize::MAX),
        ("lattice", 77),
        ("format", 2),
        ("group", 3),
    ] {
        change(key, at);
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("state.redb") && error.contains("hint: "),
            "{key} {at}: {error}"
        );
        change(key, at);
    }
    open(dir.path()).unwrap();
}
