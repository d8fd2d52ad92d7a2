//! Import and export: the tree that goes in is the tree that comes out.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::support::Node;

/// Every file below a directory, by its path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = entry
                .path()
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.insert(path, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What people really have in their trees.
fn plant(root: &Path) {
    write(root, "app.json", b"{\n  \"b\": 1.10,\n  \"a\": [ ]\n}\n");
    write(root, "empty", b"");
    write(root, "crlf.txt", b"a\r\nb\r\n");
    write(
        root,
        "eu/de/tax rates (2026).yaml",
        "satz: 19 %\nstädte: [Köln]\n".as_bytes(),
    );
    write(root, "eu/de/100%.txt", b"percent");
    write(root, "eu/logo.png", b"\x89PNG\r\n\x1a\n\0\0\0");
    write(root, "eu/bom.json", b"\xef\xbb\xbf{}");
    write(root, "eu/deep.json", "[".repeat(150).as_bytes());
    write(root, "large/just-inline", &vec![b'i'; 256 << 10]);
    write(root, "large/just-not-inline", &vec![b'n'; (256 << 10) + 1]);
    let big: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    write(root, "large/staged.bin", &big);
    (0..700).for_each(|n| {
        write(
            root,
            &format!("many/{n:04}.json"),
            format!("{{\"n\":{n}}}").as_bytes(),
        )
    });
}

#[test]
fn an_imported_tree_is_exported_byte_for_byte_and_importing_again_changes_nothing() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("settings");
    plant(&tree);
    let tree = tree.to_str().unwrap();
    let planted = files(Path::new(tree));

    let dry = node.confman(&["import", tree, "--dry-run", "--json"]);
    assert_eq!(
        (dry.code, &dry.json()["created"]),
        (0, &planted.len().into()),
        "{dry:?}"
    );
    assert_eq!(
        node.confman(&["list", "settings"]).code,
        4,
        "a dry run writes nothing"
    );

    let first = node.confman(&["import", tree, "--json"]);
    assert_eq!(first.code, 0, "{first:?}");
    let report = first.json();
    assert_eq!(
        (&report["created"], &report["complete"]),
        (&planted.len().into(), &true.into()),
        "{report}"
    );

    let out = dir.path().join("out");
    let exported = node.confman(&[
        "export",
        out.to_str().unwrap(),
        "--from",
        "settings",
        "--json",
    ]);
    assert_eq!(exported.code, 0, "{exported:?}");
    assert!(
        files(&out) == planted,
        "{:?} and {:?}",
        files(&out).keys(),
        planted.keys()
    );

    let again = node.confman(&["import", tree, "--json"]).json();
    assert_eq!(
        (&again["unchanged"], &again["bytesStored"]),
        (&planted.len().into(), &0.into()),
        "{again}"
    );
    write(Path::new(tree), "app.json", b"{}");
    let third = node.confman(&["import", tree, "--json"]).json();
    assert_eq!(
        (&third["updated"], &third["unchanged"]),
        (&1.into(), &(planted.len() - 1).into()),
        "{third}"
    );

    let audit = node
        .confman(&["audit", "settings", "-r", "--limit", "100000", "--json"])
        .json();
    let puts = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["action"] == "put");
    let by_first = puts
        .clone()
        .filter(|event| event["correlationId"] == report["correlationId"])
        .count();
    assert_eq!(
        (puts.count(), by_first),
        (planted.len() + 1, planted.len()),
        "each change once"
    );
}

#[test]
fn types_are_told_by_content() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    assert_eq!(
        node.confman(&["import", dir.path().to_str().unwrap(), "--into", "a/b"])
            .code,
        0
    );
    for (key, expected) in [
        ("app.json", "json"),
        ("empty", "string"),
        ("eu/de/tax rates (2026).yaml", "string"),
        ("eu/logo.png", "binary"),
        ("eu/deep.json", "string"),
        ("large/just-not-inline", "string"),
        ("large/staged.bin", "binary"),
    ] {
        let entry = node
            .confman(&["get", &format!("a/b/{key}"), "--json"])
            .json();
        assert_eq!(entry["type"], expected, "{key}");
    }
}

#[test]
fn what_could_not_be_imported_is_named_and_the_exit_code_says_so() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "fine", b"x");
    write(dir.path(), ".git/HEAD", b"ref");
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).unwrap();
    let path = dir.path().to_str().unwrap();
    let by_rule = node.confman(&["import", path, "--into", "t", "--json"]);
    assert_eq!(
        (by_rule.code, &by_rule.json()["skipped"]),
        (0, &2.into()),
        "{by_rule:?}"
    );
    std::fs::write(
        dir.path()
            .join(std::ffi::OsString::from_vec(b"\xff".to_vec())),
        "x",
    )
    .unwrap();
    write(dir.path(), "too-large", &[b'x'; 2000]);
    let lossy = node.confman(&[
        "import",
        path,
        "--into",
        "t",
        "--value-bytes-max",
        "1000",
        "--json",
    ]);
    assert_eq!(
        (lossy.code, &lossy.json()["lost"], &lossy.json()["complete"]),
        (7, &2.into(), &false.into()),
        "{lossy:?}"
    );
}

#[test]
fn an_export_leaves_what_is_there_alone_unless_told() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    for (path, value) in [("a/k", "1"), ("a/b/k", "2"), ("c/k", "3")] {
        assert_eq!(node.confman(&["put", path, value]).code, 0);
    }
    let out = dir.path().join("out");
    write(&out, "mine", b"kept");
    let out_arg = out.to_str().unwrap();
    assert_eq!(node.confman(&["export", out_arg]).code, 2);
    assert_eq!(files(&out).len(), 1);
    let exported = node
        .confman(&["export", out_arg, "--overwrite", "--json"])
        .json();
    assert_eq!(exported["written"], 3, "{exported}");
    let expected = [("a/b/k", "2"), ("a/k", "1"), ("c/k", "3"), ("mine", "kept")];
    let expected: BTreeMap<_, _> = expected
        .map(|(p, v)| (p.to_owned(), v.as_bytes().to_vec()))
        .into();
    assert_eq!(files(&out), expected);
    write(&out, "a/k", b"X");
    let again = node
        .confman(&["export", out_arg, "--overwrite", "--json"])
        .json();
    assert_eq!(
        (&again["written"], &again["unchanged"]),
        (&1.into(), &2.into()),
        "{again}"
    );
    assert_eq!(files(&out), expected);
    assert_eq!(
        node.confman(&["export", out_arg, "--overwrite", "--from", "nope"])
            .code,
        4
    );
}

#[test]
fn a_key_and_a_namespace_of_the_same_name_cannot_both_be_files_and_that_is_said() {
    let node = Node::start();
    assert_eq!(node.confman(&["put", "a/b", "a key"]).code, 0);
    assert_eq!(node.confman(&["put", "a/b/c", "in a namespace"]).code, 0);
    assert_eq!(
        node.confman(&["put", "a", "--key", "x/y", "a slash"]).code,
        0
    );
    let dir = tempfile::tempdir().unwrap();
    let exported = node.confman(&["export", dir.path().join("out").to_str().unwrap(), "--json"]);
    assert_eq!(
        (exported.code, &exported.json()["complete"]),
        (7, &false.into()),
        "{exported:?}"
    );
    assert_eq!(
        exported.json()["failures"].as_array().unwrap().len(),
        2,
        "{exported:?}"
    );
}

/// A script reads a long list in pieces, and gets what the whole list holds: nothing twice, nothing left out.
#[test]
fn a_list_goes_on_where_its_limit_ended() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "a",
        "b",
        "one/c",
        "one/d",
        "one/two/e",
        "one-more/f",
        "three/g",
    ] {
        write(dir.path(), path, path.as_bytes());
    }
    let tree = dir.path().to_str().unwrap();
    assert_eq!(node.confman(&["import", tree, "--into", "tree"]).code, 0);

    for what in [
        &["list", "--json"][..],
        &["list", "tree", "--json"],
        &["list", "--recursive", "--json"],
        &["list", "tree/one", "--recursive", "--json"],
    ] {
        let whole = node.confman(what).json();
        assert_eq!(whole["nextCursor"], serde_json::Value::Null, "{what:?}");
        let whole = whole["items"].as_array().unwrap().clone();
        for limit in 1..=whole.len() {
            let (limit, mut cursor, mut pieces) = (limit.to_string(), None::<String>, Vec::new());
            // One more than the items need: the last page may be empty.
            for _ in 0..=whole.len() {
                let mut args = what.to_vec();
                args.extend(["--limit", &limit]);
                args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
                let page = node.confman(&args).json();
                pieces.extend(page["items"].as_array().unwrap().clone());
                cursor = page["nextCursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(cursor, None, "{what:?} by {limit} does not end");
            assert_eq!(pieces, whole, "{what:?} by {limit}");
        }
    }
    let wrong = node.confman(&["list", "--cursor", "bm9uZQ"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}
