//! The keys file and the look-up, on real files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;

use super::file::{create_key_from, create_token_from, read_with_stamp};
use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A time at which the file is looked at again.
fn later(times: u32) -> Instant {
    Instant::now() + RELOAD_INTERVAL * times
}

#[test]
fn a_key_opens_as_who_it_was_made_for() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let alice = create_key(&path, "alice", Role::Admin).expect("made");
    let bob = create_key(&path, "bob", Role::Viewer).expect("made");
    assert_ne!(alice, bob);
    assert!(
        alice.starts_with("confman_") && alice.len() == "confman_".len() + 43,
        "{alice}"
    );
    let keys = Keys::load(&path).expect("loaded");
    let identity = keys.authenticate(&alice).expect("known");
    assert_eq!(
        (identity.name.as_str(), identity.role),
        ("alice", Role::Admin)
    );
    let identity = keys.authenticate(&bob).expect("known");
    assert_eq!(
        (identity.name.as_str(), identity.role),
        ("bob", Role::Viewer)
    );
    for wrong in [
        "",
        "confman_",
        &alice[1..],
        &format!("{alice}x"),
        &alice.to_lowercase(),
    ] {
        assert_eq!(keys.authenticate(wrong), None, "{wrong}");
    }
    // What the file holds opens nothing.
    let text = fs::read_to_string(&path).expect("text");
    let hash = hex::encode(sha256(&alice));
    assert!(text.contains(&hash) && !text.contains(&alice), "{text}");
    assert_eq!(keys.authenticate(&hash), None);
    assert!(!format!("{keys:?}").contains(&hash));
}

#[test]
fn the_file_is_private_and_nothing_is_left_beside_it() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    // What a crash between the two steps leaves.
    fs::write(directory.path().join(".keys.json.new"), "half").expect("written");
    create_key(&path, "a", Role::Editor).expect("made");
    create_key(&path, "b", Role::Publisher).expect("made");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(directory.path())
        .expect("listed")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["keys.json"]);
    let listed = list_keys(&path).expect("listed");
    let listed: Vec<_> = listed
        .iter()
        .map(|key| (key.name.as_str(), key.role))
        .collect();
    assert_eq!(listed, [("a", Role::Editor), ("b", Role::Publisher)]);
}

#[test]
fn the_file_has_the_shape_that_is_documented() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let now: Timestamp = "2026-01-02T03:04:05.678900999Z".parse().expect("a time");
    let key = create_key_from(&path, "ci", Role::Publisher, [7; 32], now).expect("made");
    assert_eq!(key, "confman_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({"version": 1, "keys": [{
            "name": "ci",
            "role": "publisher",
            "hash": hex::encode(sha256(&key)),
            "createdAt": "2026-01-02T03:04:05.678900Z",
        }]})
    );
}

#[test]
fn a_change_counts_within_a_second_without_a_restart() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let first = create_key(&path, "first", Role::Viewer).expect("made");
    let keys = Keys::load(&path).expect("loaded");
    let second = create_key(&path, "second", Role::Viewer).expect("made");
    assert!(
        keys.authenticate_at(&second, later(1)).is_some(),
        "the new key is known"
    );
    revoke_key(&path, "first").expect("revoked");
    assert!(
        keys.authenticate_at(&first, later(2)).is_none(),
        "the revoked key is refused"
    );
    // The last one too: a file without keys is read as that, not taken for a damaged one.
    revoke_key(&path, "second").expect("revoked");
    assert!(
        keys.authenticate_at(&second, later(3)).is_none(),
        "the last revoked key is refused"
    );
}

#[test]
fn a_file_that_turns_bad_changes_nothing_until_it_is_good_again() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let key = create_key(&path, "first", Role::Viewer).expect("made");
    let good = fs::read(&path).expect("read");
    let keys = Keys::load(&path).expect("loaded");
    fs::write(&path, "{").expect("damaged");
    assert!(keys.authenticate_at(&key, later(1)).is_some());
    fs::remove_file(&path).expect("removed");
    assert!(keys.authenticate_at(&key, later(2)).is_some());
    fs::write(&path, &good).expect("restored");
    let second = create_key(&path, "second", Role::Viewer).expect("made");
    assert!(keys.authenticate_at(&second, later(3)).is_some());
}

#[test]
fn the_file_is_looked_at_once_a_second_at_most() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    create_key(&path, "first", Role::Viewer).expect("made");
    let keys = Keys::load(&path).expect("loaded");
    let start = keys.watched.lock().looked_at;
    let second = create_key(&path, "second", Role::Viewer).expect("made");
    let early = start + RELOAD_INTERVAL - Duration::from_millis(1);
    assert!(keys.authenticate_at(&second, early).is_none());
    assert!(
        keys.authenticate_at(&second, start + RELOAD_INTERVAL)
            .is_some()
    );
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let file = path.display().to_string();
    let check = |error: KeysError, why: &str, hint: &str| {
        let text = error.to_string();
        assert!(text.contains(&file) && text.contains(why), "{text}");
        assert!(error.hint().contains(hint), "{}", error.hint());
    };
    check(
        Keys::load(&path).expect_err("missing"),
        "find the keys file",
        "confman key create",
    );
    check(
        revoke_key(&path, "x").expect_err("missing"),
        "find",
        "confman key create",
    );
    create_key(&path, "taken", Role::Admin).expect("made");
    check(
        create_key(&path, "taken", Role::Viewer).expect_err("taken"),
        "already has a key named `taken`",
        "confman key revoke --name taken",
    );
    check(
        revoke_key(&path, "who").expect_err("nobody"),
        "no key named `who`",
        "confman key list",
    );
    for (mode, fits) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
        match Keys::load(&path) {
            Ok(_) => assert!(fits, "{mode:o}"),
            Err(error) if !fits => check(error, &format!("mode {mode:o}"), "chmod 600"),
            Err(error) => panic!("{mode:o}: {error}"),
        }
    }
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    check(
        Keys::load(&path).expect_err("a directory"),
        "not a regular file",
        "read and write",
    );
}

#[test]
fn i19_a_hostile_keys_file_is_refused_with_the_reason() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let hash = "ab".repeat(32);
    let key = |name: &str, role: &str, hash: &str| {
        format!(
            r#"{{"name":"{name}","role":"{role}","hash":"{hash}","createdAt":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let good = key("a", "admin", &hash);
    let file = |keys: &str| format!(r#"{{"version":1,"keys":[{keys}]}}"#);
    for (content, why) in [
        (String::new(), "EOF"),
        ("{}".to_owned(), "version"),
        (
            r#"{"version":2,"keys":{}}"#.to_owned(),
            "its version is 2, and this confman knows 1",
        ),
        (
            r#"{"version":1,"keys":[],"admins":[]}"#.to_owned(),
            "unknown field",
        ),
        (
            file(&key("a", "root", &hash)),
            "expected one of admin, publisher, editor, viewer",
        ),
        (file(&key("anonymous", "admin", &hash)), "the name of key 1"),
        (file(&key("", "admin", &hash)), "the name of key 1"),
        (
            file(&format!("{good},{}", key("b", "admin", "ab"))),
            "the hash of key 2",
        ),
        (
            file(&key("b", "admin", &"zz".repeat(32))),
            "the hash of key 1",
        ),
        (file(&format!("{good},{good}")), "two keys are named `a`"),
        ("[".repeat(100_000), "invalid type"),
        (" ".repeat(5 << 20), "longer than"),
    ] {
        fs::write(&path, &content).expect("written");
        let error = Keys::load(&path).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains(why), "{why}: {text}");
        assert!(text.len() < 1000 && !text.contains(&hash), "{text}");
    }
    fs::write(&path, file(&good)).expect("written");
    Keys::load(&path).expect("the good one of these is taken");
}

#[test]
fn names_that_cannot_stand_in_the_audit_history_are_refused() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    for name in ["", "a b", "a/b", "é", "a\n", "anonymous", &"x".repeat(65)] {
        let error = create_key(&path, name, Role::Viewer).expect_err("refused");
        assert!(matches!(error, KeysError::Name { .. }), "{error}");
        assert!(!error.problem().contains('\n'), "{error}");
    }
    assert!(!path.exists(), "no file is made for a key that is not");
    create_key(&path, "a.b-c_d@example.com", Role::Viewer).expect("a good name");
}

#[test]
fn keys_made_at_the_same_time_are_all_there() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for at in 0..5 {
                    create_key(path, &format!("{thread}-{at}"), Role::Viewer).expect("made");
                }
            });
        }
    });
    assert_eq!(list_keys(&path).expect("listed").len(), 40);
}

#[test]
fn every_key_of_many_is_found_and_only_by_itself() {
    let directory = directory();
    let path = directory.path().join("keys.json");
    let made: Vec<String> = (0..20)
        .map(|at| create_key(&path, &format!("k{at}"), Role::Viewer).expect("made"))
        .collect();
    let keys = Keys::load(&path).expect("loaded");
    for (at, key) in made.iter().enumerate() {
        assert_eq!(
            keys.authenticate(key).expect("known").name,
            format!("k{at}")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i19_no_bytes_panic(bytes in any::<Vec<u8>>(), cut in 0_usize..200, flip in 0_usize..200) {
        let directory = directory();
        let path = directory.path().join("keys.json");
        fs::write(&path, &bytes).expect("written");
        prop_assert!(read_with_stamp(&path).is_err());
        fs::remove_file(&path).expect("removed");
        create_key(&path, "a", Role::Admin).expect("made");
        let mut good = fs::read(&path).expect("read");
        let flip = flip % good.len();
        good[flip] ^= 1;
        good.truncate(good.len().saturating_sub(cut));
        fs::write(&path, &good).expect("written");
        let _ = read_with_stamp(&path);
    }
}

#[test]
fn a_token_is_made_once_and_only_its_owner_reads_it() {
    let directory = directory();
    let path = directory.path().join("cluster-token");
    assert!(create_token_from(&path, [7; 32]).expect("made"));
    let token = fs::read_to_string(&path).expect("text");
    assert_eq!(token.trim().len(), 43, "{token}");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    assert!(!create_token_from(&path, [8; 32]).expect("kept"));
    assert_eq!(fs::read_to_string(&path).expect("text"), token);
    let error =
        create_token_from(&directory.path().join("no/token"), [7; 32]).expect_err("no directory");
    assert!(error.to_string().contains("no/token"), "{error}");
}
