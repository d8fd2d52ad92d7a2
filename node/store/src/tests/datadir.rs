//! The data directory: its lock, its identity, what is found in it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use confman_snapshot::model::{GroupId, NodeInfo};
use proptest::prelude::*;

use super::kit::UUID;
use crate::datadir::*;
use crate::error::StoreError;
use crate::paths::DataPaths;

fn identity() -> Identity {
    Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        node_id: 4,
        name: "node1".to_owned(),
        shards: 1,
        members: vec![MemberAtBirth {
            id: 1,
            info: Some(NodeInfo {
                name: "node1".to_owned(),
                ..NodeInfo::default()
            }),
        }],
        state: IdentityState::Formed.into(),
        reason: String::new(),
        created_us: 17,
        lineage: String::new(),
        incarnation_floor: 0,
    }
}

fn damage(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let path = DataPaths::new(dir).identity();
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let data = DataDir::open(dir).unwrap();
    match data.inspect().unwrap() {
        Facts::Damaged(finding) => finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_directory_is_empty_and_private() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    let data = DataDir::open(&dir).unwrap();
    assert_eq!(data.inspect().unwrap(), Facts::Empty);
    assert_eq!(
        std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    data.write_identity(&identity()).unwrap();
    assert_eq!(data.inspect().unwrap(), Facts::Good(identity()));
    assert_eq!(
        std::fs::metadata(data.paths().identity())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    // A newer one takes its place; strange files are left alone.
    let fenced = Identity {
        state: IdentityState::Fenced.into(),
        shards: 1,
        reason: "x".to_owned(),
        ..identity()
    };
    std::fs::write(dir.join("notes.txt"), "mine").unwrap();
    data.write_identity(&fenced).unwrap();
    assert_eq!(data.read_identity().unwrap(), Some(fenced));
    assert!(dir.join("notes.txt").exists());
}

#[test]
fn d09_a_directory_is_used_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path()).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&format!("in use by process {}", std::process::id())),
        "{text}"
    );
    assert!(text.contains("hint: "), "{text}");
    drop(first);
    DataDir::open(dir.path()).unwrap();
}

/// A child that is being started has, for a moment, every lock of its parent, those too that the parent gives up meanwhile.
#[test]
fn a_directory_that_was_given_up_can_be_taken_again_while_children_are_started() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            for _ in 0..300 {
                drop(DataDir::open(dir.path()).unwrap());
            }
        });
        while !opening.is_finished() {
            let started = std::process::Command::new("true").status();
            assert!(started.unwrap().success());
        }
    });
}

#[test]
fn tmp_is_emptied_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let tmp = {
        let data = DataDir::open(dir.path()).unwrap();
        data.paths().tmp()
    };
    std::fs::create_dir(tmp.join("sub")).unwrap();
    std::fs::write(tmp.join("sub/half.snap"), "half").unwrap();
    DataDir::open(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}

#[test]
fn d07_a_damaged_identity_is_named_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    DataDir::open(dir.path())
        .unwrap()
        .write_identity(&identity())
        .unwrap();
    let path = DataPaths::new(dir.path()).identity();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole).unwrap();
        let finding = damage(dir.path(), |bytes| bytes[at] ^= 0x10);
        assert!(
            finding.contains("identity") && finding.contains("is damaged"),
            "byte {at}: {finding}"
        );
        assert!(finding.contains("hint: "), "{finding}");
    }
    for length in 0..whole.len() {
        std::fs::write(&path, &whole).unwrap();
        let finding = damage(dir.path(), |bytes| bytes.truncate(length));
        assert!(finding.contains("is damaged"), "{length} bytes: {finding}");
    }
    assert!(path.exists());
}

#[test]
fn an_identity_of_a_newer_version_says_so() {
    let dir = tempfile::tempdir().unwrap();
    DataDir::open(dir.path())
        .unwrap()
        .write_identity(&identity())
        .unwrap();
    let finding = damage(dir.path(), |bytes| {
        bytes[11] = 2;
        let body = bytes.len() - 4;
        let sum =
            <codeq::config::Crc32fast as codeq::config::CodeqConfig>::hash(&bytes[..body]) as u32;
        bytes[body..].copy_from_slice(&sum.to_be_bytes());
    });
    assert!(
        finding.contains("format version 2, this program reads up to 1"),
        "{finding}"
    );
}

#[test]
fn an_identity_that_cannot_be_is_damage() {
    for strange in [
        Identity {
            cluster_uuid: "nonsense".to_owned(),
            ..identity()
        },
        Identity {
            node_id: 0,
            ..identity()
        },
        Identity {
            shards: 0,
            ..identity()
        },
        Identity {
            state: 77,
            ..identity()
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.write_identity(&strange).unwrap();
        assert!(
            matches!(data.inspect().unwrap(), Facts::Damaged(_)),
            "{strange:?}"
        );
    }
}

fn make_group(data: &DataDir, group: &GroupId) {
    let paths = data.paths().group(group);
    std::fs::create_dir_all(paths.dir()).unwrap();
    std::fs::write(paths.state(), "state").unwrap();
}

#[test]
fn i14_data_without_an_identity_and_an_identity_without_its_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    make_group(&data, &GroupId::meta());
    let Facts::Damaged(finding) = data.inspect().unwrap() else {
        panic!()
    };
    assert!(finding.contains("there is data of __meta/0"), "{finding}");
    // On the way to its first start a node may have no groups yet; later all of them.
    data.write_identity(&identity()).unwrap();
    assert!(matches!(data.inspect().unwrap(), Facts::Good(_)));
    data.write_identity(&Identity {
        state: IdentityState::Initialized.into(),
        ..identity()
    })
    .unwrap();
    let Facts::Damaged(finding) = data.inspect().unwrap() else {
        panic!()
    };
    assert!(finding.contains("has no data of config/0"), "{finding}");
    make_group(&data, &GroupId::config(0));
    assert!(matches!(data.inspect().unwrap(), Facts::Good(_)));
}

#[test]
fn setting_aside_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    data.write_identity(&identity()).unwrap();
    make_group(&data, &GroupId::meta());
    let first = data
        .set_aside("lost its disk", 1_700_000_000_000_000)
        .unwrap();
    assert_eq!(data.inspect().unwrap(), Facts::Empty);
    assert_eq!(
        std::fs::read_to_string(first.join("REASON")).unwrap(),
        "lost its disk\n"
    );
    assert!(first.join("identity").exists() && first.join("groups/__meta-0/state.redb").exists());
    assert!(
        first.ends_with("aside/20231114T221320.000000Z"),
        "{first:?}"
    );
    // Again, at the same moment.
    data.write_identity(&identity()).unwrap();
    let second = data.set_aside("again", 1_700_000_000_000_000).unwrap();
    assert_ne!(first, second);
    assert!(second.join("identity").exists() && first.join("identity").exists());
}

#[test]
fn d14_links_inside_are_refused_and_the_directory_itself_may_be_one() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().join("real");
    std::fs::create_dir(&real).unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    drop(DataDir::open(&link).unwrap());
    let elsewhere = root.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("precious"), "x").unwrap();
    std::fs::remove_dir(real.join("tmp")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, real.join("tmp")).unwrap();
    let error = DataDir::open(&link).unwrap_err().to_string();
    assert!(error.contains("a symbolic link"), "{error}");
    assert!(elsewhere.join("precious").exists());
}

#[test]
fn d06_a_path_that_is_no_directory_is_an_error_with_its_name() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = DataDir::open(&file).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
    // Where the tests run as root nothing is read-only; the error is then that of a directory that cannot be made.
    let error = DataDir::open(Path::new("/proc/confman"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/proc/confman"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i19_any_bytes_as_an_identity_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        std::fs::write(data.paths().identity(), bytes).unwrap();
        prop_assert!(matches!(data.inspect().unwrap(), Facts::Damaged(_)));
    }

    #[test]
    fn names_of_groups_go_round(topic in "[a-z0-9_-]{1,20}", partition in 0..100u32) {
        let group = GroupId::new(topic, partition).unwrap();
        let paths = DataPaths::new("/d").group(&group);
        let name = paths.dir().file_name().unwrap().to_str().unwrap();
        prop_assert_eq!(DataPaths::parse_group_dir(name), Some(group));
    }
}
