//! Where the directories are from which the survivor takes single groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_store::DataPaths;

use super::collect::now;
use super::directory;
use super::plan::{OtherDirectory, Plan};
use super::role::check_fresh;
use super::swap;

use crate::codes;

/// By node name: a directory that is what the plan saw.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<String, PathBuf>);

impl Sources {
    /// The root of that node's directory; none for the survivor's own.
    pub(super) fn root_of(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
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
        let named = given
            .iter()
            .find(|(name, _)| *name == other.name)
            .map(|(_, dir)| dir.clone());
        let here = (other.host == directory::host()).then(|| PathBuf::from(&other.path));
        let Some(dir) = named.or(here).filter(|dir| dir != survivor) else {
            return Err(missing(plan, other, "it is on another host"));
        };
        // When it was set aside already, what it has is there.
        let aside = swap::aside(&DataPaths::new(&dir), &plan.plan_id);
        let dir = if aside.join("identity").exists() {
            aside
        } else {
            dir
        };
        let found = directory::read(&dir, now().as_us())
            .map_err(|failure| missing(plan, other, &failure.to_string()))?;
        check_fresh(&found, &other.fingerprint)?;
        sources.insert(other.name.clone(), dir);
    }
    Ok(Sources(sources))
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
