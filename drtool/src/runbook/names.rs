//! What stands for the names in braces: what this machine's settings say, and what a living cluster says of its members.
//!
//! Promises: nothing is guessed. A name that nobody told stays in braces.

use std::collections::{BTreeMap, BTreeSet};

use confman_client::wire::Status;
use serde::Serialize;

use crate::live::report::Report;

/// Names with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// What the settings of a node on this machine say.
    pub(super) fn of_machine(env: impl Iterator<Item = (String, String)>) -> Self {
        let known = [("CONFMAN_DATA_DIR", "data"), ("CONFMAN_NODE_NAME", "here")];
        let mut names = Self::default();
        for (variable, value) in env.filter(|(_, value)| !value.is_empty()) {
            if let Some((_, name)) = known.iter().find(|(known, _)| *known == variable) {
                names.set(name, &value);
            }
        }
        names
    }

    /// Gives a name a value, whatever it had.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// What the cluster says of its names, and the same in words; none where no node told.
    ///
    /// - `node`: the node that it is about: the given one, else the first member that does not answer;
    /// - `other`: another one, which answers;
    /// - `lost`: every member that does not answer, as `drtool recover plan` wants them;
    /// - `collections`: the file of every member that answers, as `drtool recover collect` wants them.
    pub(super) fn of_cluster(&mut self, report: &Report, given: Option<&str>) -> Option<String> {
        let living: Vec<&Status> = report
            .nodes
            .iter()
            .filter_map(|account| account.status.as_ref())
            .filter(|status| report.is_of(status))
            .collect();
        let answers: BTreeSet<&str> = living.iter().map(|s| s.node.name.as_str()).collect();
        let mut members: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for status in &living {
            for member in status.groups.iter().flat_map(|group| &group.members) {
                members.insert(&member.name, (&member.api_url, &member.peer_addr));
            }
        }
        if members.is_empty() {
            return None;
        }
        let (up, down): (Vec<&str>, Vec<&str>) = members
            .keys()
            .copied()
            .partition(|name| answers.contains(name));
        let node = given.or(down.first().copied());
        if let Some(node) = node {
            self.set("node", node);
        }
        if let Some(other) = up.iter().find(|name| Some(**name) != node) {
            self.set("other", other);
        }
        let options = |names: &[&str], option: &dyn Fn(&str) -> String| -> String {
            let each: Vec<String> = names.iter().map(|name| option(name)).collect();
            each.join(" ")
        };
        if !down.is_empty() {
            self.set("lost", &options(&down, &|name| format!("--lost {name}")));
            let file = |name: &str| format!("--merge collection-{name}.json");
            self.set("collections", &options(&up, &file));
        }
        let rows = members.iter().map(|(name, (api, peer))| {
            let does = match answers.contains(name) {
                true => "answers",
                false => "does not answer",
            };
            format!("\n  {name}: {api}, peers {peer}, {does}")
        });
        Some(format!(
            "This cluster: {}, incarnation {}{}",
            report.cluster_uuid.clone().unwrap_or_default(),
            report.incarnation.unwrap_or_default(),
            rows.collect::<String>()
        ))
    }

    /// Puts values in the place of names in braces; a name without a value stays as it is.
    pub(super) fn fill(&self, page: &str) -> String {
        self.0.iter().fold(page.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::judge;
    use crate::live::tests::kit::{NOW_US, Town, town};

    fn filled(town: &Town, given: Option<&str>, text: &str) -> String {
        let mut names = Names::default();
        names.of_cluster(&judge::report(town.asked(), None, NOW_US), given);
        names.fill(text)
    }

    #[test]
    fn names_in_braces_are_filled_in_and_others_stay() {
        let mut names = Names::default();
        names.set("node", "node3");
        assert_eq!(names.fill("mv {data} on {node}"), "mv {data} on node3");
    }

    #[test]
    fn the_settings_of_the_machine_name_its_directory_and_its_node() {
        let env = [
            ("CONFMAN_DATA_DIR", "/srv/c"),
            ("CONFMAN_NODE_NAME", "node2"),
            ("HOME", "/root"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let names = Names::of_machine(env.into_iter());
        assert_eq!(names.fill("{here} {data} {HOME}"), "node2 /srv/c {HOME}");
    }

    #[test]
    fn the_other_node_is_another_one_and_answers() {
        let healthy = town(3, 1);
        assert_eq!(filled(&healthy, None, "{node} {other}"), "{node} node1");
        assert_eq!(
            filled(&healthy, Some("node1"), "{node} {other}"),
            "node1 node2"
        );
        let mut one_down = town(3, 1);
        one_down.silence(1);
        assert_eq!(filled(&one_down, None, "{node} {other}"), "node1 node2");
        assert_eq!(
            filled(&one_down, Some("node2"), "{node} {other}"),
            "node2 node3"
        );
        let mut alone = town(3, 1);
        alone.silence(1);
        alone.silence(2);
        assert_eq!(
            filled(&alone, Some("node3"), "{other}"),
            "{other}",
            "nobody else answers"
        );
    }

    #[test]
    fn who_is_lost_and_who_is_left_is_said_as_the_commands_want_it() {
        let mut five = town(5, 1);
        for node in [1, 3, 4] {
            five.silence(node);
        }
        assert_eq!(
            filled(&five, None, "{lost} | {collections}"),
            "--lost node1 --lost node3 --lost node4 | --merge collection-node2.json --merge collection-node5.json"
        );
        let healthy = town(3, 1);
        assert_eq!(
            filled(&healthy, None, "{lost} {collections}"),
            "{lost} {collections}"
        );
    }
}
