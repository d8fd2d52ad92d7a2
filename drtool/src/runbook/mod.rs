//! `drtool runbook`: what to do when something has happened, with this cluster's names filled in.
//!
//! The pages lie in `drtool/runbooks/` and are part of the program, because on the bad day nothing else may be at hand. Their
//! `sh` blocks are carried out by a test against real clusters, so that none can name what does not exist. `index` has the
//! pages and which failure each is for, `names` what stands for the names in braces.

mod index;
mod names;

use std::process::ExitCode;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;

use crate::codes;
use crate::context::Global;
use crate::live::report::Report;
use crate::live::status;
use index::{Section, page, sections, title};
use names::Names;

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

/// Said below every page that has a step of a machine's own tools.
const IN_CONTAINERS: &str =
    "In containers: `drtool runbook containers` says what takes the place of `systemctl` and `mv`.";

pub(crate) async fn run(args: &RunbookArgs, global: &Global) -> Result<ExitCode, Failure> {
    let Some(name) = &args.name else {
        return list(global);
    };
    let page = page(name).ok_or_else(|| {
        codes::refuse(
            "RUNBOOK_UNKNOWN",
            ErrorKind::NotFound,
            format!("there is no runbook {name:?}"),
        )
        .with_hint("`drtool runbook` lists all of them")
    })?;
    let report = ask(args, global).await;
    let mut names = Names::of_machine(std::env::vars());
    let about = report
        .as_ref()
        .and_then(|report| names.of_cluster(report, args.node.as_deref()));
    if let Some(node) = &args.node {
        names.set("node", node);
    }
    for (name, value) in &args.set {
        names.set(name, value);
    }
    let mut text = names.fill(page);
    if name != "containers" && text.contains("systemctl") {
        text = format!("{}\n\n{IN_CONTAINERS}\n", text.trim_end());
    }
    if global.json {
        output::json(&serde_json::json!({ "name": name, "text": text, "filledIn": names }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let about = about.unwrap_or_else(|| {
        "(No node answered, so names in braces are yours to fill in: --node, --set data=...)"
            .to_owned()
    });
    let page = format!("{}\n\n{about}\n", text.trim_end());
    status::print(&confman_cli::escape::lines(&page))?;
    Ok(ExitCode::SUCCESS)
}

/// A page is printed whatever the cluster does: that no node answers is why it is read.
async fn ask(args: &RunbookArgs, global: &Global) -> Option<Report> {
    let client = args.to.client(global.verbose, None).ok()?;
    match status::look(&client).await {
        Ok(report) => Some(report),
        Err(failure) => {
            global.note(failure);
            None
        }
    }
}

fn list(global: &Global) -> Result<ExitCode, Failure> {
    if global.json {
        let items: Vec<_> = sections()
            .flat_map(|Section { about, pages }| {
                pages.iter().map(move |(name, page)| {
                    serde_json::json!({ "name": name, "title": title(page), "for": about })
                })
            })
            .collect();
        output::json(&serde_json::json!({ "items": items }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for Section { about, pages } in sections() {
        output::line(about)?;
        for (name, page) in pages {
            output::line(&format!("  {name:<22} {}", title(page)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> impl Iterator<Item = index::Page> {
        sections().flat_map(|section| section.pages).copied()
    }

    #[test]
    fn every_failure_has_a_page_and_every_page_one_place() {
        assert_eq!(index::FAILURES.len(), 9);
        for (at, Section { about, pages }) in (1..).zip(index::FAILURES) {
            assert!(about.starts_with(&format!("{at}. ")), "{about}");
            assert!(!pages.is_empty(), "{about}");
        }
        let mut names: Vec<&str> = pages().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a page stands in two places");
    }

    #[test]
    fn a_pair_has_a_name() {
        assert_eq!(pair("data=/srv/x").unwrap().1, "/srv/x");
        assert!(pair("data").is_err());
    }

    #[test]
    fn every_page_has_the_same_parts() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let files = std::fs::read_dir(dir).unwrap().count();
        assert_eq!(files, pages().count(), "a page is not part of the program");
        for (name, page) in pages() {
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

    /// What is wrong with a command that stands in running text, where names stand for arguments: it must be there, and take its options.
    fn unknown(command: &str) -> Option<String> {
        let mut tool = crate::cli::command();
        tool.build();
        let mut at = &tool;
        for word in command.split_whitespace().skip(1) {
            let leads = at.get_subcommands().next().is_some();
            match (at.find_subcommand(word), word.strip_prefix("--")) {
                (Some(sub), _) => at = sub,
                (None, Some(option)) => {
                    let name = option.split('=').next();
                    if !at.get_arguments().any(|taken| taken.get_long() == name) {
                        return Some(format!("{} takes no {word}", at.get_name()));
                    }
                }
                // `drtool COMMAND --help` is about all of them.
                (None, None) if word == "COMMAND" => return None,
                (None, None) if leads && word != "..." => {
                    return Some(format!("{} has no command {word}", at.get_name()));
                }
                (None, None) => {}
            }
        }
        None
    }

    /// The commands in the running text of pages, and in what `drtool explain` says.
    #[test]
    fn running_text_names_no_command_that_is_not_there() {
        let codes = crate::codes::ALL.iter().flat_map(|room| room.codes);
        let codes = codes.map(|code| (code.name, format!("{} {}", code.meaning, code.remedy)));
        let pages = pages().map(|(name, page)| {
            let text: Vec<&str> = page.split("```").step_by(2).collect();
            (name, text.join("\n"))
        });
        let mut checked = 0;
        for (name, text) in codes.chain(pages) {
            let quoted = text.split('`').skip(1).step_by(2);
            for command in quoted.filter(|quoted| quoted.starts_with("drtool ")) {
                if let Some(why) = unknown(command) {
                    panic!("{name} names `{command}`: {why}");
                }
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked} commands");
        assert!(unknown("drtool member replace OLD NEW HOST:PORT --yes").is_none());
        assert!(unknown("drtool member swap OLD NEW").is_some());
        assert!(unknown("drtool status --watch --nonsense").is_some());
    }

    /// In blocks: no page names a command or an option that is not there.
    #[test]
    fn every_command_of_a_page_is_one() {
        let mut checked = 0;
        for (name, page) in pages() {
            let blocks = page.split("```").skip(1).step_by(2);
            let lines = blocks.flat_map(|block| block.lines().skip(1));
            for line in lines {
                let words: Vec<&str> = line
                    .split(" #")
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect();
                // In a container the program follows its service.
                let inside = words.iter().position(|w| *w == "/usr/local/bin/drtool");
                let words = match (words.first(), inside) {
                    (Some(&"drtool"), _) => words,
                    (_, Some(at)) => [&["drtool"], &words[at + 2..]].concat(),
                    _ => continue,
                };
                // What stands for several arguments is one here; quotes are the shell's.
                let words = words.iter().map(|w| match *w {
                    "{group}" => "config/0",
                    word => word.trim_matches('"'),
                });
                let several = ["{lost}", "{collections}", "the", "mistake"];
                let plain = words.filter(|w| !several.contains(w));
                if let Err(error) = crate::cli::command().try_get_matches_from(plain) {
                    panic!("{name}: {line}\n{error}");
                }
                checked += 1;
            }
            for quoted in page.split("`drtool runbook ").skip(1) {
                let other = quoted.split('`').next().unwrap_or_default();
                assert!(
                    index::page(other).is_some(),
                    "{name} names the runbook {other:?}"
                );
            }
        }
        assert!(checked > 40, "{checked} commands");
        let rules = include_str!("../../../compose/prometheus/rules.yml");
        let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
        assert!(alerts.len() > 20, "{} alerts", alerts.len());
        for alert in alerts {
            let name = alert.lines().next().unwrap_or_default();
            let named: Vec<&str> = alert
                .lines()
                .filter_map(|l| l.trim().strip_prefix("runbook: "))
                .collect();
            assert!(
                matches!(named[..], [page] if index::page(page).is_some()),
                "{name} names {named:?}, which is not one runbook"
            );
        }
    }

    /// The page names the places of the image and the services of the compose file as those do.
    #[test]
    fn the_containers_of_the_page_are_those_of_the_compose_file() {
        let page = index::page("containers").unwrap();
        let image = include_str!("../../../compose/Dockerfile");
        let compose = include_str!("../../../compose/docker-compose.yml");
        let data = "/var/lib/confman/data";
        assert!(image.contains(&format!("ENV CONFMAN_DATA_DIR={data}\n")));
        assert!(
            page.contains(&format!("set-aside {data}")) && page.contains(&format!("verify {data}"))
        );
        assert!(
            image.contains("VOLUME [\"/var/lib/confman\"]"),
            "what is written beside the data stays"
        );
        let root = include_str!("../../../compose/root.sh");
        assert!(
            root.contains("cp \"$programs/confman\" \"$programs/drtool\" \"$root/usr/local/bin/\"")
                && image.contains("RUN sh /root.sh /programs /out\n")
                && image.contains("COPY --from=builder /out /\n")
        );
        for node in ["node1", "node2", "node3"] {
            let volume = format!("volumes: [\"{node}:/var/lib/confman\", ");
            assert!(
                compose.contains(&volume),
                "a service and its volume have one name: {volume}"
            );
        }
        let listens = compose.split("CONFMAN_API_LISTEN: 0.0.0.0:").skip(1);
        let ports = listens.map(|text| text.split_whitespace().next().unwrap_or_default());
        let urls: Vec<String> = (1..)
            .zip(ports)
            .map(|(number, port)| format!("http://node{number}:{port}"))
            .collect();
        assert_eq!(urls.len(), 3);
        let asks = format!(
            " -e CONFMAN_ENDPOINTS={} -e CONFMAN_API_KEY ",
            urls.join(",")
        );
        let recovers = |line: &&str| line.contains("compose run") && line.contains(" recover ");
        assert_eq!(page.lines().filter(recovers).count(), 2);
        for line in page.lines().filter(recovers) {
            assert!(line.contains(&asks), "who lives is not seen: {line}");
        }
        assert!(
            !page.contains("compose cp"),
            "docker-compose 1.29 has no such command"
        );
        let removes = |line: &&str| line.contains("docker volume rm");
        for line in page.lines().filter(removes) {
            assert!(
                line.starts_with("docker cp ") && line.matches(" && ").count() == 2,
                "a copy that failed ends it: {line}"
            );
        }
        assert!(
            compose.contains("image: ${NODE_IMAGE:-confman:local}")
                && page.contains(" confman:local ")
        );
    }
}
