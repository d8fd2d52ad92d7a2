//! `drtool runbook`: what to do when something has happened, with this cluster's names filled in.
//!
//! The pages lie in `drtool/runbooks/` and are part of the program, because on the bad day nothing else may be at hand. Their
//! `sh` blocks are carried out by a test against real clusters, so that none can name what does not exist.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;

use crate::codes;
use crate::context::Global;
use crate::live::status;

/// Every page: its name, and its text.
pub(crate) const PAGES: &[(&str, &str)] = &[
    (
        "lost-one-node",
        include_str!("../runbooks/lost-one-node.md"),
    ),
    ("lost-a-disk", include_str!("../runbooks/lost-a-disk.md")),
    ("lost-quorum", include_str!("../runbooks/lost-quorum.md")),
    (
        "lost-everything",
        include_str!("../runbooks/lost-everything.md"),
    ),
    (
        "point-in-time",
        include_str!("../runbooks/point-in-time.md"),
    ),
    (
        "damaged-snapshot",
        include_str!("../runbooks/damaged-snapshot.md"),
    ),
    ("drill", include_str!("../runbooks/drill.md")),
    (
        "store-unreachable",
        include_str!("../runbooks/store-unreachable.md"),
    ),
    ("disk-full", include_str!("../runbooks/disk-full.md")),
    (
        "slow-follower",
        include_str!("../runbooks/slow-follower.md"),
    ),
    ("partition", include_str!("../runbooks/partition.md")),
    (
        "cluster-does-not-form",
        include_str!("../runbooks/cluster-does-not-form.md"),
    ),
    (
        "change-members",
        include_str!("../runbooks/change-members.md"),
    ),
    (
        "rolling-upgrade",
        include_str!("../runbooks/rolling-upgrade.md"),
    ),
    ("rotate-keys", include_str!("../runbooks/rotate-keys.md")),
];

/// Print what to do when something has happened, with this cluster's names filled in
#[derive(Debug, Args)]
pub(crate) struct RunbookArgs {
    /// Which one; without it, the list
    name: Option<String>,
    /// The node that it is about [default: the first member that does not answer]
    #[arg(long)]
    node: Option<String>,
    /// Fill in a name that stands in braces, such as data=/srv/confman; may be given again
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    to: TargetArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))
}

pub(crate) async fn run(args: &RunbookArgs, global: &Global) -> Result<ExitCode, Failure> {
    let Some(name) = &args.name else {
        return list(global);
    };
    let (_, page) = PAGES.iter().find(|(n, _)| n == name).ok_or_else(|| {
        codes::refuse(
            "RUNBOOK_UNKNOWN",
            ErrorKind::NotFound,
            format!("there is no runbook {name:?}"),
        )
        .with_hint("`drtool runbook` lists all of them")
    })?;
    let cluster = look(args, global).await;
    let mut names = cluster.as_ref().map(Cluster::names).unwrap_or_default();
    if let Some(node) = &args.node {
        names.insert("node".to_owned(), node.clone());
    }
    names.extend(args.set.iter().cloned());
    let text = fill(page, &names);
    if global.json {
        output::json(&serde_json::json!({ "name": name, "text": text, "filledIn": names }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let about = cluster.map_or_else(
        || {
            "(No node answered, so names in braces are yours to fill in: --node, --set data=...)"
                .to_owned()
        },
        |cluster| cluster.summary,
    );
    let page = format!("{}\n\n{about}\n", text.trim_end());
    status::print(&confman_cli::escape::lines(&page))?;
    Ok(ExitCode::SUCCESS)
}

fn list(global: &Global) -> Result<ExitCode, Failure> {
    if global.json {
        let items: Vec<_> = PAGES
            .iter()
            .map(|(name, page)| serde_json::json!({ "name": name, "title": title(page) }))
            .collect();
        output::json(&serde_json::json!({ "items": items }))?;
    } else {
        for (name, page) in PAGES {
            output::line(&format!("{name:<22} {}", title(page)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn title(page: &str) -> &str {
    page.lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("# ")
}

/// Puts values in the place of names in braces; a name without a value stays as it is.
fn fill(page: &str, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(page.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// What a living cluster says of its names.
struct Cluster {
    missing: Option<String>,
    other: Option<String>,
    summary: String,
}

impl Cluster {
    fn names(&self) -> BTreeMap<String, String> {
        let known = [("node", &self.missing), ("other", &self.other)];
        known
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect()
    }
}

/// A page is printed whatever the cluster does: that no node answers is why it is read.
async fn look(args: &RunbookArgs, global: &Global) -> Option<Cluster> {
    let client = args.to.client(global.verbose, None).ok()?;
    let report = match status::look(&client).await {
        Ok(report) => report,
        Err(failure) => {
            global.note(failure);
            return None;
        }
    };
    let up: Vec<_> = report
        .nodes
        .iter()
        .filter_map(|node| node.status.as_ref())
        .collect();
    let answered: Vec<String> = up.iter().map(|status| status.node.name.clone()).collect();
    let mut members: Vec<(String, String, String)> = up
        .iter()
        .flat_map(|status| status.groups.iter().flat_map(|group| &group.members))
        .map(|m| (m.name.clone(), m.api_url.clone(), m.peer_addr.clone()))
        .collect();
    members.sort();
    members.dedup();
    if members.is_empty() {
        return None;
    }
    let rows: Vec<String> = members
        .iter()
        .map(|(name, api, peer)| {
            let answers = if answered.contains(name) {
                "answers"
            } else {
                "does not answer"
            };
            format!("  {name}: {api}, peers {peer}, {answers}")
        })
        .collect();
    Some(Cluster {
        missing: members
            .iter()
            .map(|(name, ..)| name)
            .find(|name| !answered.contains(name))
            .cloned(),
        other: answered.first().cloned(),
        summary: format!(
            "This cluster: {}, incarnation {}\n{}",
            report.cluster_uuid.unwrap_or_default(),
            report.incarnation.unwrap_or_default(),
            rows.join("\n")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_filled_in_and_others_stay() {
        let names = BTreeMap::from([("node".to_owned(), "node3".to_owned())]);
        assert_eq!(fill("mv {data} on {node}", &names), "mv {data} on node3");
        assert_eq!(pair("data=/srv/x").unwrap().1, "/srv/x");
        assert!(pair("data").is_err());
    }

    #[test]
    fn every_page_has_the_same_parts() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let files = std::fs::read_dir(dir).unwrap().count();
        assert_eq!(files, PAGES.len(), "a page is not part of the program");
        for (name, page) in PAGES {
            assert!(!title(page).is_empty(), "{name}");
            for part in [
                "\n## Symptom\n",
                "\n## Check\n",
                "\n## Steps\n",
                "\n## How to know that it worked\n",
                "\n## What not to do\n",
            ] {
                assert_eq!(page.matches(part).count(), 1, "{name}: {part:?}");
            }
        }
    }

    /// In blocks and in running text alike: no page names a command or an option that is not there.
    #[test]
    fn every_command_of_a_page_is_one() {
        let mut checked = 0;
        for (name, page) in PAGES {
            let blocks = page.split("```").skip(1).step_by(2);
            let lines = blocks.flat_map(|block| block.lines().skip(1));
            for line in lines {
                let words: Vec<&str> = line
                    .split(" #")
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect();
                if words.first() != Some(&"drtool") {
                    continue;
                }
                // What stands for several arguments is one here; quotes are the shell's.
                let words = words.iter().map(|w| w.trim_matches('"'));
                let plain = words.filter(|w| !["{lost}", "the", "mistake"].contains(w));
                if let Err(error) = crate::cli::command().try_get_matches_from(plain) {
                    panic!("{name}: {line}\n{error}");
                }
                checked += 1;
            }
            for quoted in page.split("`drtool runbook ").skip(1) {
                let other = quoted.split('`').next().unwrap_or_default();
                assert!(
                    PAGES.iter().any(|(n, _)| *n == other),
                    "{name} names the runbook {other:?}"
                );
            }
        }
        assert!(checked > 40, "{checked} commands");
        let rules = include_str!("../../compose/prometheus/rules.yml");
        for line in rules
            .lines()
            .filter_map(|l| l.trim().strip_prefix("runbook: "))
        {
            assert!(
                PAGES.iter().any(|(n, _)| *n == line),
                "an alert names {line:?}"
            );
        }
    }
}
