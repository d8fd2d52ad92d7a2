//! `drtool set-aside`: what a data directory holds is moved into its `aside/`, so that its node starts as an empty one.
//!
//! The directory itself stays: it may be a mount point, or a volume, which cannot be renamed. Nothing is deleted, and each move is one
//! rename: killed in between, the command is run again.
//!
//! Does not: say whether the cluster can spare the node. It reads one directory, and the plan that it shows says what to look at first.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_store::datadir::Facts;
use confman_store::{DataDir, DataPaths, StoreError};
use serde::Serialize;

use crate::codes::{self, Code};
use crate::consent::{self, Consent};
use crate::context::Global;
use crate::owner;
use crate::recover::data_failure;
use crate::restore::operator;

/// The refusals of this room.
pub(crate) const CODES: &[Code] = &[Code {
    name: "ASIDE_UNDER_WAY",
    meaning: "A recovery was begun in the directory, or a restore into it, and has not ended: its contents are half old and half new.",
    remedy: "Run `drtool recover apply` with the same plan again, or `drtool recover undo`; a restore: `drtool restore local` again. Then set it aside.",
}];

/// The word to type where no cluster can be read.
const NO_CLUSTER: &str = "set-aside";

/// Move what a data directory holds into its aside/, so that its node starts empty and joins anew
///
/// Nothing is deleted. The node must be stopped, and gets a new id when it starts. The directory stays where it is: it may be a mount point.
/// Where there is nothing to set aside, nothing is done.
#[derive(Debug, Args)]
pub(crate) struct SetAsideArgs {
    /// The data directory [default: CONFMAN_DATA_DIR]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Why; it is kept beside the contents
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who does it [default: the user]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Agree to it
    #[arg(short, long)]
    yes: bool,
}

/// What is shown and agreed to.
#[derive(Debug)]
struct Moving<'a> {
    path: &'a Path,
    /// What lies there, for people.
    what: String,
}

impl std::fmt::Display for Moving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Set aside: {}", self.path.display())?;
        writeln!(f, "  {}", self.what)?;
        writeln!(
            f,
            "  it is moved to {}/aside/ and kept; the node that starts here then is a new one",
            self.path.display()
        )?;
        write!(
            f,
            "  the other nodes go on without it: `drtool status` says whether they have a quorum. They must have one"
        )
    }
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    directory: String,
    /// Where the old contents are; none where there were none.
    aside: Option<String>,
}

pub(crate) fn run(args: &SetAsideArgs, global: &Global) -> Result<ExitCode, Failure> {
    let path = named(args.directory.as_deref())?;
    let reason = args.reason.as_deref().unwrap_or("set aside by hand");
    let who = operator(args.operator.as_deref());
    let aside = match found(&path)? {
        None => None,
        Some((data, what, word)) => {
            let moving = Moving {
                path: &path,
                what: what.clone(),
            };
            let consent = consent::ask(consent::show(&moving)?, args.yes, &word)?;
            Some(carry_out(
                &consent,
                &data,
                &format!("{reason}\nby {who}: {what}"),
            )?)
        }
    };
    tell(&path, aside.as_deref(), global)?;
    Ok(ExitCode::SUCCESS)
}

fn named(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let from_env = || std::env::var_os("CONFMAN_DATA_DIR").map(PathBuf::from);
    given.map(Path::to_owned).or_else(from_env).ok_or_else(|| {
        codes::usage("ARGUMENT", "no data directory is named")
            .with_hint("name it, or set CONFMAN_DATA_DIR as the node has it")
    })
}

/// The directory under its lock, what lies there, and the word that an operator types for it; none where nothing lies there.
fn found(path: &Path) -> Result<Option<(DataDir, String, String)>, Failure> {
    // Opening makes and empties what a node's directory has: not in one that is none, whose path may have been mistyped. That is told by
    // [`tell`], and its node, which was not helped, says so itself.
    if !holds_anything(path)? {
        return Ok(None);
    }
    owner::refuse_stranger(path)?;
    let data = DataDir::open(path).map_err(data_failure)?;
    match data.read_surgery() {
        // All that a restore has made so far is half a product, which can be made again.
        Ok(Some(surgery)) if !surgery.restore => {
            return Err(codes::refuse(
                "ASIDE_UNDER_WAY",
                ErrorKind::Refused,
                format!(
                    "{}: {} was begun here and has not ended",
                    path.display(),
                    surgery.what()
                ),
            )
            .with_hint(surgery.command));
        }
        Err(error @ StoreError::NewerVersion { .. }) => return Err(data_failure(error)),
        // One that is damaged goes with the rest: nobody can end what it speaks of.
        _ => {}
    }
    let (what, word) = match data.inspect().map_err(data_failure)? {
        Facts::Empty => return Ok(None),
        Facts::Good(identity) => (
            format!(
                "the data of {} (node id {}) of cluster {} incarnation {}",
                identity.name, identity.node_id, identity.cluster_uuid, identity.incarnation
            ),
            identity.cluster_uuid.chars().take(8).collect(),
        ),
        Facts::Damaged(finding) => {
            let finding = crate::store::errors::split(&finding).0;
            (format!("damaged: {finding}"), NO_CLUSTER.to_owned())
        }
    };
    Ok(Some((data, what, word)))
}

/// Whether anything lies there that a node has written. Looks, and no more.
fn holds_anything(path: &Path) -> Result<bool, Failure> {
    let paths = DataPaths::new(path);
    let files = [
        paths.identity(),
        paths.incarnation(),
        paths.claim(),
        paths.promises(),
        paths.surgery(),
    ];
    for file in files {
        match std::fs::symlink_metadata(&file) {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(codes::local("look at", &file, &e)),
        }
    }
    let groups = paths.groups();
    match std::fs::read_dir(&groups) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(codes::local("look at", &groups, &e)),
    }
}

fn carry_out(
    _consent: &Consent<'_, Moving<'_>>,
    data: &DataDir,
    reason: &str,
) -> Result<PathBuf, Failure> {
    let now_us = jiff::Timestamp::now().as_microsecond();
    data.set_aside(reason, now_us).map_err(data_failure)
}

fn tell(path: &Path, aside: Option<&Path>, global: &Global) -> Result<(), Failure> {
    let shown = path.display().to_string();
    if global.json {
        return output::json(&Done {
            directory: shown,
            aside: aside.map(|to| to.display().to_string()),
        });
    }
    match aside {
        None if !path.exists() => output::line(&format!(
            "nothing to set aside: {shown} is not there; if the node has its data elsewhere, name that directory"
        )),
        None => output::line(&format!(
            "nothing to set aside: {shown} holds no data of a node"
        )),
        Some(to) => {
            output::line(&format!("the old contents are in {}", to.display()))?;
            output::line(
                "next: start the node with its usual settings; it joins the cluster under a new id",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use confman_store::Identity;

    use super::*;

    const UUID: &str = "7a3f9c01-0000-4000-8000-000000000001";

    fn node(dir: &Path) -> DataDir {
        let data = DataDir::open(dir).unwrap();
        let identity = Identity {
            cluster_uuid: UUID.to_owned(),
            incarnation: 2,
            node_id: 7,
            name: "node3".to_owned(),
            shards: 1,
            ..Identity::default()
        };
        data.write_identity(&identity).unwrap();
        data
    }

    fn set_aside(dir: &Path) -> Option<PathBuf> {
        let (data, what, word) = found(dir).unwrap()?;
        let moving = Moving { path: dir, what };
        let consent = consent::ask(consent::show(&moving).unwrap(), true, &word).unwrap();
        Some(carry_out(&consent, &data, "why").unwrap())
    }

    #[test]
    fn what_is_agreed_to_says_whose_data_goes_where() {
        let dir = tempfile::tempdir().unwrap();
        drop(node(dir.path()));
        let (_, what, word) = found(dir.path()).unwrap().unwrap();
        assert_eq!(word, "7a3f9c01");
        let path = Path::new("/var/lib/confman");
        insta::assert_snapshot!(Moving { path, what }, @r"
        Set aside: /var/lib/confman
          the data of node3 (node id 7) of cluster 7a3f9c01-0000-4000-8000-000000000001 incarnation 2
          it is moved to /var/lib/confman/aside/ and kept; the node that starts here then is a new one
          the other nodes go on without it: `drtool status` says whether they have a quorum. They must have one
        ");
    }

    #[test]
    fn a_directory_is_as_good_as_empty_afterwards_and_nothing_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        drop(node(dir.path()));
        let to = set_aside(dir.path()).unwrap();
        let kept = confman_store::datadir::read_identity_at(&to.join("identity"));
        assert_eq!(kept.unwrap().unwrap().node_id, 7);
        assert!(
            std::fs::read_to_string(to.join("REASON"))
                .unwrap()
                .contains("why")
        );
        let again = DataDir::open(dir.path()).unwrap();
        assert_eq!(again.inspect().unwrap(), Facts::Empty);
        drop(again);
        assert_eq!(set_aside(dir.path()), None, "a second time");
    }

    #[test]
    fn what_is_damaged_is_set_aside_too() {
        let dir = tempfile::tempdir().unwrap();
        drop(node(dir.path()));
        let identity = dir.path().join("identity");
        let mut bytes = std::fs::read(&identity).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&identity, &bytes).unwrap();
        let (data, what, word) = found(dir.path()).unwrap().unwrap();
        assert!(what.starts_with("damaged: "), "{what}");
        assert_eq!(word, NO_CLUSTER);
        drop(data);
        let to = set_aside(dir.path()).unwrap();
        assert_eq!(std::fs::read(to.join("identity")).unwrap(), bytes);
    }

    #[test]
    fn i17_killed_between_two_moves_it_is_run_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(node(dir.path()));
        let group = dir.path().join("groups/config-0");
        std::fs::create_dir_all(group.join("log")).unwrap();
        // As far as a first run came: the identity goes first.
        let half = dir.path().join("aside/earlier");
        std::fs::create_dir_all(&half).unwrap();
        std::fs::rename(dir.path().join("identity"), half.join("identity")).unwrap();
        let to = set_aside(dir.path()).unwrap();
        assert!(to.join("groups/config-0/log").is_dir());
        assert!(half.join("identity").is_file());
    }

    #[test]
    fn a_directory_that_is_held_or_half_recovered_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = node(dir.path());
        let refused = |dir: &Path| {
            let failure = found(dir).map(|_| ()).unwrap_err();
            failure.document().unwrap()["error"]["code"].clone()
        };
        assert_eq!(refused(dir.path()), "RECOVER_RUNNING");
        data.begin_surgery(&confman_store::datadir::Surgery {
            plan_id: "p1".to_owned(),
            command: "go on".to_owned(),
            ..Default::default()
        })
        .unwrap();
        drop(data);
        assert_eq!(refused(dir.path()), "ASIDE_UNDER_WAY");
        let file = dir.path().join("surgery");
        let mut bytes = std::fs::read(&file).unwrap();
        // Damaged: nobody can end what it speaks of, and no node starts beside it.
        bytes[12] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let to = set_aside(dir.path()).unwrap();
        assert_eq!(std::fs::read(to.join("surgery")).unwrap(), bytes);
        let again = DataDir::open(dir.path()).unwrap();
        assert_eq!(again.inspect().unwrap(), Facts::Empty);
    }

    #[test]
    fn nothing_is_made_where_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        assert_eq!(set_aside(&absent), None);
        assert!(!absent.exists());
        // Somebody's home, a mount point, `/`: what is called as a node calls its own is not touched there.
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        std::fs::write(dir.path().join("tmp/theirs"), "kept").unwrap();
        assert_eq!(set_aside(dir.path()), None);
        let mut there: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        there.sort();
        assert_eq!(there, ["tmp"]);
        assert_eq!(
            std::fs::read(dir.path().join("tmp/theirs")).unwrap(),
            b"kept"
        );
    }
}
