//! Namespaces: made, counted, listed, deleted in steps.

use super::kit::*;
use crate::command::*;
use crate::state::NamespaceItem;

fn paths_of(items: &[NamespaceItem]) -> Vec<&str> {
    items.iter().map(|item| item.path.as_str()).collect()
}

#[test]
fn a_put_makes_its_namespace_and_the_ones_above() {
    let mut r = Replica::new();
    r.op(put("a/b/c", "k", "1"));
    r.op(put("a/d", "k", "1"));
    let record = |path: &str| {
        let record = r.state.get_namespace(path).unwrap().unwrap();
        (record.keys, record.children)
    };
    assert_eq!(
        (record("a"), record("a/b"), record("a/b/c"), record("a/d")),
        ((0, 2), (0, 1), (1, 0), (1, 0))
    );
    assert_eq!(
        r.state.get_namespace("a").unwrap().unwrap().created_by,
        "ann"
    );
    assert_eq!(tell(&r.op(create("a/b"))), "namespace was there");
    assert_eq!(tell(&r.op(create("e/f"))), "namespace created");
    r.assert_hash();
}

#[test]
fn namespaces_are_listed_in_pages() {
    let mut r = Replica::new();
    for path in ["a/x", "a-b", "a/x/y", "b", "a/z"] {
        r.op(create(path));
    }
    let list = |prefix, after, limit| r.state.list_namespaces(prefix, after, limit).unwrap();
    assert_eq!(
        paths_of(&list(None, None, 10)),
        ["a", "a-b", "a/x", "a/x/y", "a/z", "b"]
    );
    assert_eq!(paths_of(&list(None, Some("a-b"), 2)), ["a/x", "a/x/y"]);
    assert_eq!(
        paths_of(&list(Some("a"), None, 10)),
        ["a", "a/x", "a/x/y", "a/z"]
    );
    assert_eq!(paths_of(&list(Some("a"), None, 1)), ["a"]);
    assert_eq!(paths_of(&list(Some("a"), Some("a"), 2)), ["a/x", "a/x/y"]);
    assert_eq!(
        paths_of(&list(Some("a"), Some("a/x"), 10)),
        ["a/x/y", "a/z"]
    );
    assert_eq!(paths_of(&list(Some("none"), None, 10)), [""; 0]);
    let children = |path, after, limit| r.state.list_children(path, after, limit).unwrap();
    assert_eq!(paths_of(&children("a", None, 10)), ["a/x", "a/z"]);
    assert_eq!(paths_of(&children("a", None, 1)), ["a/x"]);
    assert_eq!(paths_of(&children("a", Some("a/x"), 10)), ["a/z"]);
}

#[test]
fn a_tree_is_deleted_in_bounded_steps_and_nothing_beside_it() {
    let mut r = Replica::new();
    let mut commands = Vec::new();
    for n in 0..1500 {
        commands.push(command(
            r.clock_us,
            put(&format!("a/n{}", n % 30), &format!("k{n}"), "v"),
        ));
    }
    for namespace in ["a-b", "ab", "b", "a"] {
        commands.push(command(r.clock_us, put(namespace, "k", "v")));
    }
    r.batch(commands);
    assert_eq!(
        tell(&r.op(drop_namespace("a"))),
        "namespace deleted, 1000 keys, more"
    );
    r.assert_hash();
    assert!(r.state.get_namespace("a").unwrap().is_some());
    let left: u64 = r
        .state
        .list_namespaces(Some("a"), None, 100)
        .unwrap()
        .iter()
        .map(|n| n.record.keys)
        .sum();
    assert_eq!(left, 501);
    assert_eq!(
        tell(&r.op(drop_namespace("a"))),
        "namespace deleted, 501 keys"
    );
    assert_eq!(
        tell(&r.op(drop_namespace("a"))),
        "refused NotFound: there is no such namespace"
    );
    assert_eq!(
        paths_of(&r.state.list_namespaces(None, None, 100).unwrap()),
        ["a-b", "ab", "b"]
    );
    assert_eq!(
        (
            r.version("a-b", "k"),
            r.version("ab", "k"),
            r.version("b", "k")
        ),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!(r.version("a/n1", "k1"), None);
    r.assert_hash();
}

#[test]
fn many_namespaces_are_deleted_in_bounded_steps_too() {
    let mut r = Replica::new();
    let commands = (0..1200)
        .map(|n| command(r.clock_us, create(&format!("a/n{n:04}"))))
        .collect();
    r.batch(commands);
    assert_eq!(
        tell(&r.op(drop_namespace("a"))),
        "namespace deleted, 0 keys, more"
    );
    assert_eq!(r.state.get_namespace("a").unwrap().unwrap().children, 200);
    assert_eq!(
        tell(&r.op(drop_namespace("a"))),
        "namespace deleted, 0 keys"
    );
    assert_eq!(r.state.list_namespaces(None, None, 10).unwrap().len(), 0);
    r.assert_hash();
}

#[test]
fn deleting_a_namespace_counts_it_out_of_its_parent() {
    let mut r = Replica::new();
    r.op(put("a/b", "k", "1"));
    r.op(put("a/c", "k", "1"));
    r.op(drop_namespace("a/b"));
    assert_eq!(r.state.get_namespace("a").unwrap().unwrap().children, 1);
    r.op(delete("a/c", "k"));
    assert_eq!(r.state.get_namespace("a/c").unwrap().unwrap().keys, 0);
}

#[test]
fn each_step_of_a_deletion_with_an_idempotency_key_goes_on() {
    let mut r = Replica::new();
    let commands = (0..1100)
        .map(|n| command(r.clock_us, put("a", &format!("k{n}"), "v")))
        .collect();
    r.batch(commands);
    assert_eq!(
        tell(&r.once("k", "p", drop_namespace("a"))),
        "namespace deleted, 1000 keys, more"
    );
    assert_eq!(
        tell(&r.once("k", "p", drop_namespace("a"))),
        "namespace deleted, 100 keys"
    );
    assert_eq!(
        tell(&r.once("k", "p", drop_namespace("a"))),
        "namespace deleted, 100 keys (again)"
    );
    assert_eq!(
        r.op(drop_namespace("a")).as_refused().unwrap().code(),
        RefusalCode::NotFound
    );
}
