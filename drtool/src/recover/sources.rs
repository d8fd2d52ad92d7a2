//! Where the directories are from which the survivor takes single groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_store::DataPaths;
use confman_store::datadir::{read_identity_at, read_surgery_at};

use super::alive::undo_command;
use super::apply::data_failure;
use super::collect::now;
use super::directory;
use super::plan::{OtherDirectory, Plan};
use super::role::check_fresh;
use super::swap;

use crate::codes;

/// By node id: a directory that is what the plan saw.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<u64, PathBuf>);

impl Sources {
    /// The root of that node's directory; none for the survivor's own.
    pub(super) fn root_of(&self, id: u64) -> Option<&Path> {
        self.0.get(&id).map(PathBuf::as_path)
    }

    /// What was copied from a node's directory is what the plan saw only if that still looks so.
    pub(super) fn check_unchanged(
        &self,
        plan: &Plan,
        id: u64,
        survivor: &Path,
    ) -> Result<(), Failure> {
        let other = plan.others.iter().find(|o| o.id == id);
        let (Some(dir), Some(other)) = (self.root_of(id), other) else {
            return Ok(());
        };
        let found = directory::read(dir, now().as_us())?;
        check_fresh(&found, &other.fingerprint).map_err(|why| {
            let name = &other.name;
            let text = format!("the directory of {name} has changed while it was copied: {why}");
            codes::refuse("RECOVER_SOURCE", ErrorKind::Refused, text).with_hint(format!(
                "stop {name} and take back what was begun here: {}. Then collect and plan again",
                undo_command(plan, survivor)
            ))
        })
    }
}

/// `NAME=DIR`.
pub(super) fn parse(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(dir)))
        }
        _ => Err("expected NAME=DIR".to_owned()),
    }
}

/// Finds every directory that gives a group: where the operator says, else where it was seen, if that is here.
pub(super) fn find(
    plan: &Plan,
    survivor: &Path,
    given: &[(String, PathBuf)],
) -> Result<Sources, Failure> {
    let mut sources = BTreeMap::new();
    for other in plan.others.iter().filter(|o| !o.gives.is_empty()) {
        let mut named = given.iter().filter(|(name, _)| *name == other.name);
        let why = match named.clone().next() {
            Some((_, dir)) => format!("{} is another node's", dir.display()),
            None => "it is on another host".to_owned(),
        };
        let named = named
            .find(|(_, dir)| may_be_of(&contents(plan, dir), other))
            .map(|(_, dir)| dir.clone());
        let here = (other.host == directory::host()).then(|| PathBuf::from(&other.path));
        let Some(dir) = named.or(here).filter(|dir| dir != survivor) else {
            return Err(missing(plan, other, &why));
        };
        refuse_under_way(plan, other, &dir)?;
        let dir = contents(plan, &dir);
        let found = directory::read(&dir, now().as_us())
            .map_err(|failure| missing(plan, other, &failure.to_string()))?;
        check_fresh(&found, &other.fingerprint)?;
        sources.insert(other.id, dir);
    }
    Ok(Sources(sources))
}

/// What the plan saw in a directory: there, or where it was set aside already.
fn contents(plan: &Plan, dir: &Path) -> PathBuf {
    let aside = swap::aside(&DataPaths::new(dir), &plan.plan_id);
    match aside.join("identity").exists() {
        true => aside,
        false => dir.to_owned(),
    }
}

/// Whether nothing says that the directory is another node's: two may have one name, and each is named by it.
fn may_be_of(dir: &Path, other: &OtherDirectory) -> bool {
    let identity = read_identity_at(&DataPaths::new(dir).identity());
    identity
        .ok()
        .flatten()
        .is_none_or(|i| i.node_id == other.id)
}

/// A directory that was set aside half way is neither whole where it was nor where it goes.
fn refuse_under_way(plan: &Plan, other: &OtherDirectory, dir: &Path) -> Result<(), Failure> {
    let surgery = read_surgery_at(&DataPaths::new(dir).surgery()).map_err(data_failure)?;
    let Some(surgery) = surgery.filter(|s| s.plan_id == plan.plan_id) else {
        return Ok(());
    };
    let text = format!(
        "{} was begun in {}, the directory of {}, and has not ended",
        surgery.what(),
        dir.display(),
        other.name
    );
    Err(
        codes::refuse("RECOVER_UNDER_WAY", ErrorKind::Refused, text).with_hint(format!(
            "end it there first, then come back: {}",
            surgery.command
        )),
    )
}

fn missing(plan: &Plan, other: &OtherDirectory, why: &str) -> Failure {
    let groups: Vec<String> = other.gives.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} takes {} from the directory of {}, and it is not at hand: {why}",
        plan.survivor.info.name,
        groups.join(", "),
        other.name
    );
    codes::refuse("RECOVER_SOURCE", ErrorKind::Refused, text).with_hint(format!(
        "copy {} from {} to this machine (a copy will do) and name it: --from {}=DIR",
        other.path, other.host, other.name
    ))
}
