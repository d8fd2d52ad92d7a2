//! I3: each change once, in order, complete.

use std::collections::BTreeSet;

use super::kit::*;
use crate::command::*;
use crate::records::*;
use crate::state::{AuditEntry, AuditFilter};

/// The whole history by pages of `limit`.
fn history(r: &Replica, filter: &AuditFilter, limit: usize) -> Vec<AuditEntry> {
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let page = r.state.list_audit(filter, before, limit).unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

fn of(namespace: Option<&str>, key: Option<&str>, recursive: bool) -> AuditFilter {
    AuditFilter {
        namespace: namespace.map(str::to_owned),
        key: key.map(str::to_owned),
        recursive,
    }
}

fn line(entry: &AuditEntry) -> String {
    let r = &entry.record;
    let value = |v: &Option<AuditValue>| {
        v.as_ref().map_or("-".to_owned(), |v| {
            String::from_utf8_lossy(&v.bytes).into_owned()
        })
    };
    format!(
        "{} {} {} {}/{} v{} {} -> {}\n",
        entry.id,
        r.actor,
        r.action,
        r.namespace,
        r.key,
        r.version,
        value(&r.old_value),
        value(&r.new_value)
    )
}

#[test]
fn i3_each_change_has_one_audit_record_with_all_that_is_known() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    r.op(put("a", "k", "2"));
    r.op(put_if("a", "k", "x", Some(Precondition::version_is(7))));
    r.op(create("a/b"));
    r.op(create("a/b"));
    r.op(put("a/b", "l", "3"));
    r.op(delete("a", "k"));
    r.op(delete("a", "k"));
    r.once("once", "p", put("a", "m", "4"));
    r.once("once", "p", put("a", "m", "4"));
    r.op(drop_namespace("a"));
    let all: String = history(&r, &AuditFilter::default(), 3)
        .iter()
        .map(line)
        .collect();
    insta::assert_snapshot!(all, @"
    config-0.3.11.3 ann namespace.delete a/ v0 - -> -
    config-0.3.11.2 ann namespace.delete a/b/ v0 - -> -
    config-0.3.11.1 ann delete a/b/l v1 3 -> -
    config-0.3.11.0 ann delete a/m v1 4 -> -
    config-0.3.9.0 ann put a/m v1 - -> 4
    config-0.3.7.0 ann delete a/k v2 2 -> -
    config-0.3.6.0 ann put a/b/l v1 - -> 3
    config-0.3.4.0 ann namespace.create a/b/ v0 - -> -
    config-0.3.2.0 ann put a/k v2 1 -> 2
    config-0.3.1.0 ann put a/k v1 - -> 1
    ");
    let last = r
        .state
        .get_audit(AuditRef { index: 2, sub: 0 })
        .unwrap()
        .unwrap()
        .record;
    assert_eq!(last.old_hash.as_ref(), confman_snapshot::value_hash(b"1"));
    assert_eq!(last.new_hash.as_ref(), confman_snapshot::value_hash(b"2"));
    assert_eq!(
        (last.request_id.as_str(), last.correlation_id.as_str()),
        ("r2", "c1")
    );
    assert_eq!(last.previous, Some(AuditRef { index: 1, sub: 0 }));
}

#[test]
fn i3_filters_find_the_same_changes_page_by_page() {
    let mut r = Replica::new();
    for n in 0..40 {
        let namespace = ["a", "a/b", "a/b/c", "ab"][n % 4];
        r.op(put(namespace, &format!("k{}", n % 3), &n.to_string()));
        if n % 5 == 0 {
            r.op(delete(namespace, &format!("k{}", n % 3)));
        }
    }
    let all = history(&r, &AuditFilter::default(), 100);
    assert_eq!(all.len(), 48);
    assert_eq!(all.iter().map(|e| &e.id).collect::<BTreeSet<_>>().len(), 48);
    assert!(all.is_sorted_by(|a, b| a.at > b.at));
    let filters = [
        of(Some("a"), None, false),
        of(Some("a"), None, true),
        of(Some("a/b"), Some("k1"), false),
        of(Some("a/b"), Some("k1"), true),
        of(None, Some("k2"), false),
        of(Some("none"), None, false),
        of(Some("none"), Some("k1"), false),
    ];
    for filter in filters {
        let wanted: Vec<&AuditEntry> = all
            .iter()
            .filter(|e| {
                let at = filter.namespace.as_ref().is_none_or(|n| {
                    e.record.namespace == *n
                        || filter.recursive && e.record.namespace.starts_with(&format!("{n}/"))
                });
                at && filter.key.as_ref().is_none_or(|k| e.record.key == *k)
            })
            .collect();
        for limit in [1, 2, 7, 100] {
            let found = history(&r, &filter, limit);
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                wanted,
                "{filter:?} by {limit}"
            );
        }
    }
}

#[test]
fn i3_the_history_of_a_key_goes_on_from_any_cursor() {
    let mut r = Replica::new();
    for n in 0..10 {
        r.op(put("a", "k", &n.to_string()));
        r.op(put("a", "other", &n.to_string()));
    }
    let filter = of(Some("a"), Some("k"), false);
    // A cursor that is no change of this key.
    let page = r
        .state
        .list_audit(&filter, Some(AuditRef { index: 8, sub: 0 }), 2)
        .unwrap();
    assert_eq!(
        page.items.iter().map(|e| e.at.index).collect::<Vec<_>>(),
        [7, 5]
    );
    assert_eq!(page.next, Some(AuditRef { index: 5, sub: 0 }));
}

#[test]
fn a_large_value_stands_in_the_audit_by_its_hash() {
    let mut r = Replica::new();
    let value = "x".repeat(AUDIT_VALUE_MAX + 1);
    r.op(put("a", "k", &value));
    r.op(put("a", "k", &value[1..]));
    let page = r
        .state
        .list_audit(&AuditFilter::default(), None, 10)
        .unwrap();
    let (new, old) = (&page.items[0].record, &page.items[1].record);
    assert_eq!(new.old_value, None);
    assert_eq!(new.new_value.as_ref().unwrap().bytes.len(), AUDIT_VALUE_MAX);
    assert_eq!(old.new_value, None);
    assert_eq!(old.new_hash, new.old_hash);
}
