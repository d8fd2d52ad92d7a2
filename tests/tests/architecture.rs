//! The arrows between the packages, from what cargo itself says: who may depend on whom, and which foreign crate
//! stays in which room (DESIGN.md, "Packages").

// Helpers of tests may fail loudly, as tests do.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Package to the packages of this workspace that it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("confman-config", &[]),
    ("confman-lthash", &[]),
    (
        "confman-snapshot",
        &["confman-config", "confman-lthash", "confman-tls"],
    ),
    ("confman-store", &["confman-config", "confman-snapshot"]),
    (
        "confman-bootstrap",
        &["confman-config", "confman-snapshot", "confman-store"],
    ),
    ("confman-allocator", &[]),
    ("confman-tls", &[]),
    ("confman-client", &["confman-config", "confman-tls"]),
    ("confman-cli", &["confman-config", "confman-client"]),
    ("confman-dev-s3", &[]),
    (
        "confman-node",
        &[
            "confman-config",
            "confman-snapshot",
            "confman-store",
            "confman-bootstrap",
            "confman-allocator",
            "confman-tls",
            "confman-client",
            "confman-cli",
            "confman-dev-s3",
        ],
    ),
    // Never the server, and nothing of its network.
    (
        "confman-drtool",
        &[
            "confman-config",
            "confman-snapshot",
            "confman-store",
            "confman-bootstrap",
            "confman-client",
            "confman-cli",
        ],
    ),
    // The scenarios drive the built program and use none of its code; certificates for it are made by confman-tls.
    ("confman-tests", &["confman-dev-s3", "confman-tls"]),
];

/// Foreign crate to the packages that may name it.
const ROOMS: [(&str, &[&str]); 19] = [
    ("openraft", &["confman-store", "confman-node"]),
    ("raft-log", &["confman-store"]),
    ("redb", &["confman-store"]),
    ("axum", &["confman-node"]),
    ("tonic", &["confman-node"]),
    // The others make `tracing` spans and know nothing of where they go.
    ("opentelemetry", &["confman-node"]),
    ("opentelemetry_sdk", &["confman-node"]),
    ("opentelemetry-proto", &["confman-node"]),
    // `confman bench` measures with a client of its own; confman-snapshot gives the object store a client with one TLS provider.
    (
        "reqwest",
        &[
            "confman-client",
            "confman-node",
            "confman-snapshot",
            "confman-tests",
        ],
    ),
    ("object_store", &["confman-snapshot"]),
    ("rustls-webpki", &["confman-tls"]),
    ("rcgen", &["confman-tls"]),
    ("flate2", &["confman-snapshot"]),
    ("zstd", &["confman-snapshot"]),
    ("crc32fast", &["confman-snapshot"]),
    ("blake3", &["confman-lthash", "confman-snapshot"]),
    ("s3s-fs", &["confman-dev-s3"]),
    ("mimalloc", &["confman-allocator"]),
    // The one package that may say `unsafe`.
    ("libmimalloc-sys", &["confman-allocator"]),
];

/// Crates that DESIGN.md rules out, anywhere in the tree.
// aws-lc-rs would be a second TLS provider: two in one binary panic.
const BANNED: [&str; 8] = [
    "bincode",
    "sled",
    "madsim",
    "figment",
    "rocksdb",
    "openssl",
    "aws-lc-rs",
    "aws-lc-sys",
];

fn metadata() -> Value {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--no-deps",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("run cargo metadata");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Package to what it depends on outside of its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let named = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let used = dependencies
            .iter()
            .filter(|dependency| dependency["kind"] != "dev");
        let names = used.map(|dependency| dependency["name"].as_str().expect("name").to_owned());
        (
            package["name"].as_str().expect("name").to_owned(),
            names.collect(),
        )
    };
    packages.iter().map(named).collect()
}

#[test]
fn arrows_between_packages_point_up_only() {
    let dependencies = dependencies();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into();
    let mut wrong = Vec::new();
    for (package, used) in &dependencies {
        let Some(allowed) = arrows.get(package.as_str()) else {
            wrong.push(format!("{package} is not in DESIGN.md's picture"));
            continue;
        };
        for name in used.iter().filter(|name| dependencies.contains_key(*name)) {
            if !allowed.contains(&name.as_str()) {
                wrong.push(format!("{package} may not use {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.into();
    let mut wrong = Vec::new();
    for (package, used) in dependencies() {
        for name in used {
            if rooms
                .get(name.as_str())
                .is_some_and(|allowed| !allowed.contains(&package.as_str()))
            {
                wrong.push(format!("{package} may not name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_design_rules_out_is_not_in_the_tree() {
    // The lock file, not `cargo metadata`: that wants every platform's crates on this machine.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("read Cargo.lock");
    let names = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let found: Vec<&str> = names.filter(|name| BANNED.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(
        lock.contains("name = \"openraft\""),
        "this is not the lock file that it should be"
    );
}

/// The one package with lints of its own: those of the workspace forbid `unsafe`.
const UNSAFE: &str = "confman-allocator";

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    for package in dependencies().keys().filter(|name| **name != UNSAFE) {
        let metadata = metadata();
        let found = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .find(|found| found["name"] == **package);
        let manifest = found
            .and_then(|found| found["manifest_path"].as_str())
            .expect("manifest path");
        let text = std::fs::read_to_string(manifest).expect("read manifest");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{manifest} does not take the lints of the workspace"
        );
    }
}

/// A page that nobody carries out is wrong one day.
#[test]
fn every_runbook_is_carried_out_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("read the tree");
    let tests: String = ["tests/tests/scenarios", "node/tests/kills"]
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .map(|(_, text)| text)
        .collect();
    let mut pages = 0;
    for page in std::fs::read_dir(root.join("drtool/runbooks")).expect("read the tree") {
        let page = page.expect("read the tree").path();
        let name = page
            .file_stem()
            .expect("read the tree")
            .to_str()
            .expect("read the tree");
        assert!(
            tests.contains(&format!("Runbook::new(\"{name}\",")),
            "no test carries out {name}"
        );
        pages += 1;
    }
    assert!(pages >= 18, "only {pages} pages");
}

/// A test that nobody runs proves nothing: each that `cargo test` leaves out says who runs it, and it does.
#[test]
fn every_ignored_test_is_run_by_somebody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("read the tree");
    let verify = std::fs::read_to_string(root.join(".ci/verify")).expect("read .ci/verify");
    assert!(
        verify.contains("--test scenarios --test kills -- --ignored"),
        ".ci/verify runs no long tests"
    );
    let run = std::fs::read_to_string(root.join(".ci/run")).expect("read .ci/run");
    let long = ["tests/tests/scenarios", "node/tests/kills"].map(|folder| root.join(folder));
    for (path, text) in ["tests", "node", "drtool", "snapshot", "bootstrap", "config"]
        .iter()
        .flat_map(|package| sources(&root.join(package)))
    {
        for line in text.lines().map(str::trim) {
            let Some(reason) = line.strip_prefix("#[ignore") else {
                continue;
            };
            let is_long = long.iter().any(|folder| path.starts_with(folder));
            let known = match is_long {
                // The command takes all of these binaries.
                true => reason.contains("\"long: .ci/verify runs it\""),
                false => {
                    [".ci/stores", ".ci/containers"].iter().any(|script| {
                        reason.contains(&format!("run {script}\"")) && run.contains(script)
                    }) || NO_TESTS.iter().any(|made| reason.contains(made))
                }
            };
            assert!(known, "{}: nobody runs {line}", path.display());
        }
    }
}

/// What is written as a test and proves nothing: a tool of the developers, with the command in its own words.
const NO_TESTS: [&str; 3] = [
    "\"a figure, not a promise\"",
    "\"writes the fixtures that are missing\"",
    "\"needs an S3 server at STORE_TEST_OTHER\"",
];

/// The Rust files below a folder of the tree.
fn sources(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).expect("read the tree") {
            let path = item.expect("read the tree").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("read the tree");
                found.push((path, text));
            }
        }
    }
    found
}
