//! The `confman` command as a process: against a node that runs, and against servers that lie.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod hostile;
mod support;
mod trees;

use serde_json::Value;
use support::{Node, confman};

#[test]
fn values_are_written_read_and_deleted_and_exit_codes_say_what_happened() {
    let node = Node::start();
    let put = node.confman(&["put", "shop/eu/tax", "0.190", "--type", "number", "--json"]);
    assert_eq!(put.code, 0, "{put:?}");
    assert_eq!(put.json()["version"], 1);
    assert_eq!(
        node.confman(&[
            "put",
            "shop/eu/tax",
            "0.2",
            "-t",
            "number",
            "--if-match",
            "v1"
        ])
        .code,
        0
    );
    let refused = node.confman(&[
        "put",
        "shop/eu/tax",
        "0.3",
        "-t",
        "number",
        "--if-match",
        "v1",
    ]);
    assert_eq!(
        (refused.code, refused.stdout.as_slice()),
        (3, &b""[..]),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("has version 2"), "{refused:?}");
    assert_eq!(
        node.confman(&["put", "shop/eu/tax", "1", "--if-absent"])
            .code,
        3
    );
    assert_eq!(
        node.confman(&["put", "shop/eu/tax", "much", "--type", "number"])
            .code,
        2
    );
    let get = node.confman(&["get", "shop/eu/tax"]);
    assert_eq!(
        (get.code, get.stdout.as_slice()),
        (0, &b"0.2"[..]),
        "bytes as they are, no line end added"
    );
    let entry = node.confman(&["get", "shop/eu/tax", "--json"]).json();
    assert_eq!(
        (&entry["value"], &entry["type"]),
        (&serde_json::json!(0.2), &serde_json::json!("number"))
    );
    assert_eq!(
        node.confman(&["put", "shop/eu", "--key", "a/b", "--skip-unchanged", "x"])
            .code,
        0
    );
    assert!(
        node.confman(&["put", "shop/eu", "--key", "a/b", "--skip-unchanged", "x"])
            .text()
            .starts_with("unchanged")
    );
    let list = node.confman(&["list", "-r", "--json"]).json();
    let keys: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["key"].as_str())
        .collect();
    assert_eq!(keys, ["a/b", "tax"]);
    let audit = node
        .confman(&["audit", "shop/eu", "--key", "tax", "--json"])
        .json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 2);
    assert_eq!(
        audit["items"][0]["newValue"],
        serde_json::json!(0.2),
        "newest first"
    );
    assert_eq!(node.confman(&["delete", "shop/eu/tax"]).code, 0);
    for gone in [
        &["get", "shop/eu/tax"][..],
        &["delete", "shop/eu/tax"],
        &["list", "nope"],
        &["namespace", "show", "nope"],
    ] {
        assert_eq!(node.confman(gone).code, 4, "{gone:?}");
    }
    let unasked = node.confman(&["namespace", "delete", "shop"]);
    assert_eq!(unasked.code, 2, "nobody has said yes: {unasked:?}");
    assert_eq!(
        node.confman(&["namespace", "delete", "shop", "--yes"]).code,
        0
    );
    assert_eq!(node.confman(&["list", "shop"]).code, 4);
}

#[test]
fn values_come_from_files_and_from_stdin_byte_for_byte() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    // More than the client keeps in memory and than a node keeps inline.
    let large: Vec<u8> = (0..6_000_000u32)
        .flat_map(|n| n.to_le_bytes())
        .take(5 << 20)
        .collect();
    let file = dir.path().join("large");
    std::fs::write(&file, &large).unwrap();
    assert_eq!(
        node.confman(&["put", "f/file", "--file", file.to_str().unwrap()])
            .code,
        0
    );
    assert_eq!(
        node.confman_with_stdin(&["put", "f/stdin", "-"], &large)
            .code,
        0
    );
    assert_eq!(
        node.confman_with_stdin(&["put", "f/text"], b"{\"a\": 1}\n")
            .code,
        0
    );
    for key in ["f/file", "f/stdin"] {
        let out = dir.path().join("out");
        assert_eq!(
            node.confman(&["get", key, "--output", out.to_str().unwrap()])
                .code,
            0
        );
        assert!(std::fs::read(&out).unwrap() == large, "{key}");
        assert!(node.confman(&["get", key]).stdout == large, "{key}");
    }
    let entry = node.confman(&["get", "f/text", "--json"]).json();
    assert_eq!(
        (&entry["type"], &entry["size"]),
        (&Value::from("json"), &Value::from(9))
    );
    assert_eq!(node.confman(&["get", "f/text"]).stdout, b"{\"a\": 1}\n");
}

#[test]
fn health_and_status_say_by_their_exit_code_whether_all_is_well() {
    let mut node = Node::start();
    assert_eq!(node.confman(&["health", &node.url()]).code, 0);
    assert_eq!(node.confman(&["health", &node.url(), "--ready"]).code, 0);
    let status = node.confman(&["status", "--json"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(status.json()["healthy"], true);
    assert_eq!(status.json()["nodes"][0]["status"]["node"]["name"], "node1");
    node.kill();
    assert_eq!(node.confman(&["health", &node.url()]).code, 1);
    let status = node.confman(&["status", "--json", "--timeout", "2"]);
    assert_eq!(
        (status.code, &status.json()["healthy"]),
        (1, &Value::from(false))
    );
    let get = node.confman(&["get", "a/b", "--timeout", "1"]);
    assert_eq!(get.code, 6, "{get:?}");
    assert!(get.stderr.contains("hint:"), "{get:?}");
}

#[test]
fn a_snapshot_is_made_and_told() {
    let node = Node::start();
    assert_eq!(node.confman(&["put", "a/b", "c"]).code, 0);
    let made = node.confman(&["snapshot", "--json"]);
    assert_eq!(made.code, 0, "{made:?}");
    let groups: Vec<_> = made.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["group"].clone())
        .collect();
    assert_eq!(groups, ["__meta/0", "config/0"]);
}

/// Asked for again, it would be built again and again until the longest wait for one is over, an hour.
#[test]
fn a_snapshot_that_fails_is_told_at_once_and_why() {
    let node = Node::start();
    assert_eq!(node.confman(&["put", "a/b", "c"]).code, 0);
    let objects = node.data().join("objects");
    std::fs::rename(&objects, node.data().join("aside")).unwrap();
    std::fs::write(&objects, "no directory").unwrap();
    let failed = node.confman(&["snapshot", "--json", "--wait", "60"]);
    assert_eq!(failed.code, 6, "{failed:?}");
    assert!(
        !failed.stderr.contains("no node could answer"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("failed: "), "{failed:?}");
    // Scripts read the same on stdout.
    let told = &failed.json()["error"];
    assert_eq!(told["exitCode"], 6, "{failed:?}");
    let message = told["message"].as_str().unwrap();
    assert!(failed.stderr.contains(message), "{failed:?}");
}

#[test]
fn keys_are_refused_by_the_codes_of_all_commands() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json").display().to_string();
    let key = |args: &[&str]| confman(&[&["key"], args, &["--file", &file]].concat());
    let create = ["create", "--role", "viewer", "--name", "ci"];
    assert_eq!(key(&["list"]).code, 2);
    assert_eq!(key(&create).code, 0);
    assert_eq!(key(&create).code, 3);
    let unknown = key(&["revoke", "--name", "cd", "--json"]);
    assert_eq!(
        (unknown.code, &unknown.json()["error"]["exitCode"]),
        (4, &4.into())
    );
}

#[test]
fn what_is_no_command_is_usage_and_what_needs_no_cluster_works_without() {
    assert_eq!(confman(&["frobnicate"]).code, 2);
    assert_eq!(confman(&["get", "no-namespace"]).code, 2);
    assert_eq!(confman(&["get", "a/../b"]).code, 2);
    assert_eq!(confman(&["bench", "--writers", "0"]).code, 2);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            confman(&["completions", shell]).text().contains("confman"),
            "{shell}"
        );
    }
    assert!(confman(&["--help"]).text().contains("Exit codes:"));
}

#[test]
fn bench_gives_figures_and_counts_what_failed() {
    let node = Node::start();
    let args = [
        "bench",
        "--duration",
        "1",
        "--ramp",
        "0",
        "--writers",
        "2",
        "--readers",
        "2",
        "--keys",
        "20",
        "--json",
    ];
    let run = node.confman(&args);
    assert_eq!(run.code, 0, "{run:?}");
    for kind in ["writes", "reads"] {
        let figures = &run.json()[kind];
        assert!(figures["count"].as_u64().unwrap() > 0, "{kind}: {figures}");
        assert!(
            figures["latencyMs"]["p99"].as_f64().unwrap()
                >= figures["latencyMs"]["p50"].as_f64().unwrap()
        );
        assert_eq!(figures["errors"], 0, "{figures}");
    }
}
