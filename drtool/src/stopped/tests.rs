//! What can be held without a node: the codes, and that the room has no way to write.

use std::path::Path;

use confman_store::offline::codes as offline;

use crate::codes;

#[test]
fn every_finding_of_the_reader_has_a_page() {
    for code in offline::ALL {
        assert!(
            super::CODES.iter().any(|page| page.name == *code),
            "drtool explain has nothing on {code}"
        );
        assert!(codes::find(code).is_some());
    }
    assert!(offline::ALL.len() > 20);
}

/// The source of the room, less comments and tests.
fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            all.push((path.display().to_string(), code.join("\n")));
        }
    }
    all
}

/// What the room must not name: the reader of `confman_store` is its only way to a file.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "tokio::fs",
    "rustix",
    "std::process::Command",
    "File::",
    "OpenOptions",
    "DataDir",
    "GroupStore",
    "LogStore",
    "surgery",
    "install_state",
    "set_aside",
    "report::write",
    "create_dir",
    "Consent",
];

fn offences(code: &str) -> Vec<&'static str> {
    FORBIDDEN
        .iter()
        .copied()
        .filter(|word| code.contains(word))
        .collect()
}

#[test]
fn i16_the_room_has_no_way_to_write() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stopped");
    let sources = sources(&dir);
    assert!(sources.len() > 8);
    for (path, code) in sources {
        assert_eq!(offences(&code), Vec::<&str>::new(), "{path}");
    }
}

#[test]
fn i16_the_check_of_the_room_can_fail() {
    for planted in [
        "std::fs::write(path, b\"x\")",
        "let data = DataDir::open(dir)?;",
        "confman_store::surgery::operate(dir, &operation)",
        "report::write(&paths, &report)",
        "tokio::fs::remove_file(path).await",
    ] {
        assert!(!offences(planted).is_empty(), "{planted}");
    }
}
