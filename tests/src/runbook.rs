//! Carries out a runbook as an operator does: the `sh` blocks of its page, line by line, against a real cluster.
//!
//! The page is asked for as an operator does too: `drtool runbook` fills in the names of the cluster that it finds, and what it
//! fills in must be what the test knows.
//!
//! A block may say where it is carried out (`sh on {node}`) or when (`sh after the store is back`); the test that knows what
//! was broken supplies both. A block `text on {node}` is for a tool that not every machine has: the test does what it says. A line may say how its command ends (`# exit code 1`), otherwise it must succeed. What the
//! machines' own tools do (`systemctl`, `docker`) is done by the harness; any other command is an error, so that nothing on a
//! page goes untried.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::binary;
use crate::cluster::Cluster;
use crate::drtool::{Drtool, Ran};
use crate::node::Node;

/// A graceful stop must be over by then.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// A page and what its names stand for.
pub struct Runbook<'a> {
    name: String,
    cluster: &'a Cluster,
    names: BTreeMap<String, String>,
    places: BTreeMap<String, Vec<usize>>,
    found: BTreeMap<String, Finder<'a>>,
    endpoints: Vec<String>,
    about: Option<usize>,
}

/// Says where a place is when its block is reached.
type Finder<'a> = Box<dyn Fn() -> anyhow::Result<Vec<usize>> + Send + Sync + 'a>;

/// One block of commands.
#[derive(Debug)]
struct Block {
    info: String,
    /// It is not for a shell that the harness has: the test carries it out.
    by_hand: bool,
    lines: Vec<String>,
}

impl<'a> Runbook<'a> {
    /// The page of that name, for this cluster.
    #[must_use]
    pub fn new(name: &str, cluster: &'a Cluster) -> Self {
        Self {
            name: name.to_owned(),
            cluster,
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            found: BTreeMap::new(),
            endpoints: cluster.endpoints(),
            about: None,
        }
    }

    /// What a name in braces stands for.
    #[must_use]
    pub fn name(mut self, name: &str, value: &str) -> Self {
        self.names.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The node that the page is about, as the operator says it.
    #[must_use]
    pub fn about(mut self, node: usize) -> Self {
        self.about = Some(node);
        self
    }

    /// On which nodes the blocks `on PLACE` are carried out, one after the other.
    #[must_use]
    pub fn place(mut self, place: &str, nodes: &[usize]) -> Self {
        self.places.insert(place.to_owned(), nodes.to_vec());
        self
    }

    /// The same, where only the page's own commands tell which nodes those are.
    #[must_use]
    pub fn place_when_reached(
        mut self,
        place: &str,
        nodes: impl Fn() -> anyhow::Result<Vec<usize>> + Send + Sync + 'a,
    ) -> Self {
        self.found.insert(place.to_owned(), Box::new(nodes));
        self
    }

    /// Only these nodes are known to the operator's machine.
    #[must_use]
    pub fn asks(mut self, nodes: &[usize]) -> Self {
        self.endpoints = nodes
            .iter()
            .map(|node| self.cluster.node(*node).api_url.clone())
            .collect();
        self
    }

    /// Carries the page out. `event` is awaited at each block that waits for something (`after ...`), and for each line that is
    /// carried out by a tool of the machine's own.
    ///
    /// # Errors
    /// A command ends otherwise than the page says, or is none that an operator could have meant.
    pub async fn carry_out(
        &self,
        event: impl AsyncFn(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let raw = Drtool::new(["runbook", &self.name, "--endpoints", "http://127.0.0.1:9"])
            .run()
            .await?
            .expect(0)?
            .stdout;
        let names = self.names.iter();
        let sets = names.flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]);
        let about = self.about.map(|node| self.cluster.node(node).name.as_str());
        let about = about.into_iter().flat_map(|name| ["--node", name]);
        let filled = self
            .cluster
            .drtool(["runbook", &self.name])
            .args(sets)
            .args(about)
            .env("CONFMAN_ENDPOINTS", &self.endpoints.join(","))
            .run()
            .await?
            .expect(0)?
            .stdout;
        let (raw, filled) = (blocks(&raw), blocks(&filled));
        ensure!(!raw.is_empty(), "{} has no commands", self.name);
        ensure!(raw.len() == filled.len(), "{}: {filled:?}", self.name);
        for (raw, block) in raw.iter().zip(filled) {
            let on = match block.info.split_once(' ') {
                None if block.info.is_empty() => vec![None],
                None => bail!("{}: a block is marked {:?}", self.name, block.info),
                Some(("after", what)) => {
                    event(what).await?;
                    vec![None]
                }
                Some(("on", place)) => {
                    let written = raw.info.strip_prefix("on ").unwrap_or_default();
                    let nodes = self.nodes_at(written, place)?;
                    if block.by_hand {
                        for line in &block.lines {
                            event(line).await?;
                        }
                        continue;
                    }
                    nodes.into_iter().map(Some).collect()
                }
                Some(_) => bail!("{}: a block is marked {:?}", self.name, block.info),
            };
            for node in on {
                for line in &block.lines {
                    self.line(line, node)
                        .await
                        .with_context(|| format!("runbook {}: {line}", self.name))?;
                }
            }
        }
        Ok(())
    }

    /// Which nodes are meant by a place, as it is written and as the tool filled it in.
    fn nodes_at(&self, written: &str, filled: &str) -> anyhow::Result<Vec<usize>> {
        let known = match (self.places.get(written), self.found.get(written)) {
            (Some(nodes), _) => nodes.clone(),
            (None, Some(find)) => find()?,
            (None, None) => bail!("{}: nobody says where {written:?} is", self.name),
        };
        // What the test named itself is no word of the tool's.
        let own = self.names.values().any(|value| value == filled);
        if written != filled && !own {
            let names: Vec<&str> = known
                .iter()
                .map(|node| self.cluster.node(*node).name.as_str())
                .collect();
            ensure!(
                names == [filled],
                "{}: {written} is filled in with {filled}, it is {names:?}",
                self.name
            );
        }
        Ok(known)
    }

    async fn line(&self, line: &str, on: Option<usize>) -> anyhow::Result<()> {
        let (command, code) = match line.split_once("# exit code ") {
            Some((command, code)) => (command, code.trim().parse()?),
            None => (line, 0),
        };
        let mut names = self.names.clone();
        if let Some(index) = on {
            let node = self.cluster.node(index);
            let data = node.data_dir.to_str().context("a path that is no text")?;
            names.insert("data".to_owned(), data.to_owned());
            names.insert("here".to_owned(), node.name.clone());
        }
        let command = names
            .iter()
            .fold(command.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{name}}}"), value)
            });
        ensure!(
            !command.contains('{'),
            "a name is left in braces: {command}"
        );
        // As in a shell: what follows a command that failed is not done.
        for command in command.split(" && ") {
            self.command(command, on, code).await?;
        }
        Ok(())
    }

    async fn command(&self, command: &str, on: Option<usize>, code: i32) -> anyhow::Result<()> {
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["drtool", args @ ..] => {
                self.drtool(args).await?.expect(code)?;
            }
            ["confman", args @ ..] => self.confman(args, on, code)?,
            ["systemctl", "start", "confman"] => self.here(on)?.start()?,
            ["systemctl", "stop", "confman"] => {
                let node = self.here(on)?;
                if node.pid().is_some() {
                    let (status, _) = node.stop(STOP_BOUND).await?;
                    ensure!(status.success(), "{status}");
                }
            }
            ["docker", "compose", args @ ..] => self.compose(args, code).await?,
            ["docker", "cp", from, to] => self.copy_out(from, to)?,
            _ => bail!("not a command that this test knows"),
        }
        Ok(())
    }

    /// What Compose does, where the containers are processes and their volumes the directories that hold the data.
    async fn compose(&self, args: &[&str], code: i32) -> anyhow::Result<()> {
        match args {
            ["stop", service] => {
                let node = self.service(service)?;
                if node.pid().is_some() {
                    let (status, _) = node.stop(STOP_BOUND).await?;
                    ensure!(status.success(), "{status}");
                }
            }
            ["up", "--detach", service] => self.service(service)?.start()?,
            ["exec", service, "confman", args @ ..] => {
                let index = self.index(service)?;
                self.confman(args, Some(index), code)?;
            }
            ["run", args @ ..] => self.one_off(args, code).await?,
            _ => bail!("not a command that this test knows"),
        }
        Ok(())
    }

    /// A container of its own with the settings and the volume of a service: it knows of other nodes what it is told.
    async fn one_off(&self, args: &[&str], code: i32) -> anyhow::Result<()> {
        let (mut env, mut args) = (Vec::new(), args);
        let (service, args) = loop {
            args = match args {
                ["--rm" | "--no-deps", rest @ ..] => rest,
                ["-e", variable, rest @ ..] => {
                    env.push(self.variable(variable)?);
                    rest
                }
                ["--entrypoint", program, rest @ ..] => {
                    ensure!(*program == "/usr/local/bin/drtool", "{program}");
                    rest
                }
                [service, rest @ ..] => break (*service, rest),
                [] => bail!("no service"),
            };
        };
        if let ["recover" | "restore", ..] = args {
            let asks = env.iter().any(|(name, _)| name == "CONFMAN_ENDPOINTS");
            ensure!(asks, "within a container nobody who lives would be seen");
        }
        let args: Vec<String> = args
            .iter()
            .map(|arg| self.in_volume(service, arg))
            .collect::<anyhow::Result<_>>()?;
        let tool = Drtool::new(args).dir(self.cluster.dir()?);
        let tool = tool.envs(self.service(service)?.env()).envs(env);
        tool.run().await?.expect(code)?;
        Ok(())
    }

    /// A variable that a container is given: `NAME=VALUE`, or `NAME` for the operator's own.
    fn variable(&self, text: &str) -> anyhow::Result<(String, String)> {
        let (name, value) = match text.split_once('=') {
            Some(("CONFMAN_ENDPOINTS", urls)) => ("CONFMAN_ENDPOINTS", self.by_service(urls)?),
            None if text == "CONFMAN_API_KEY" => (text, self.cluster.key().to_owned()),
            _ => bail!("not a variable that this test knows: {text}"),
        };
        Ok((name.to_owned(), value))
    }

    /// Where the services are here, which must be all.
    fn by_service(&self, urls: &str) -> anyhow::Result<String> {
        let mut here = Vec::new();
        for url in urls.split(',') {
            let host = url
                .strip_prefix("http://")
                .and_then(|u| u.split(':').next());
            let node = self.service(host.context("a URL of http")?)?;
            here.push(node.api_url.clone());
        }
        ensure!(here.len() == self.cluster.nodes().len(), "only {urls}");
        Ok(here.join(","))
    }

    /// Out of a container that may be stopped, whose id Compose says.
    fn copy_out(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let (service, path) = from
            .strip_prefix("$(docker compose ps -aq ")
            .and_then(|from| from.split_once("):"))
            .context("from a container")?;
        let from = self.in_volume(service, path)?;
        let to = self.cluster.dir()?.join(to);
        std::fs::copy(from, to)?;
        Ok(())
    }

    /// Where a path of a container lies here.
    fn in_volume(&self, service: &str, path: &str) -> anyhow::Result<String> {
        let data = &self.service(service)?.data_dir;
        let volume = data.parent().context("a directory below another")?;
        Ok(match path.strip_prefix("/var/lib/confman/") {
            Some("data") => data.display().to_string(),
            Some(name) => volume.join(name).display().to_string(),
            None => path.to_owned(),
        })
    }

    fn index(&self, service: &str) -> anyhow::Result<usize> {
        let mut nodes = self.cluster.nodes().iter();
        nodes
            .position(|node| node.name == service)
            .with_context(|| format!("no service {service:?}"))
    }

    fn service(&self, service: &str) -> anyhow::Result<&Node> {
        Ok(self.cluster.node(self.index(service)?))
    }

    fn here(&self, on: Option<usize>) -> anyhow::Result<&Node> {
        let index = on.context("on which machine?")?;
        Ok(self.cluster.node(index))
    }

    async fn drtool(&self, args: &[&str]) -> anyhow::Result<Ran> {
        let tool = self
            .cluster
            .drtool(args)
            .env("CONFMAN_ENDPOINTS", &self.endpoints.join(","));
        let store = self.cluster.store().await;
        let tool = match store.as_ref() {
            Some(store) => tool.envs(store.env()),
            None => tool,
        };
        drop(store);
        tool.run().await
    }

    fn confman(&self, args: &[&str], on: Option<usize>, code: i32) -> anyhow::Result<()> {
        let output = match on {
            None => self.cluster.confman(args)?,
            // On a node's machine with the node's settings.
            Some(index) => std::process::Command::new(binary::confman()?)
                .args(args)
                .env_clear()
                .envs(self.cluster.node(index).env())
                .current_dir(self.cluster.dir()?)
                .output()?,
        };
        let found = output.status.code().unwrap_or(-1);
        ensure!(
            found == code,
            "expected exit code {code}, found {found}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

fn blocks(page: &str) -> Vec<Block> {
    page.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|text| {
            let (info, body) = text.split_once('\n')?;
            let by_hand = info.starts_with("text on ");
            let info = info.strip_prefix(if by_hand { "text" } else { "sh" })?;
            Some(Block {
                info: info.trim().to_owned(),
                by_hand,
                lines: body
                    .lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

/// Splits as a shell does, as far as the pages need: double quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            letter if letter.is_whitespace() && !is_quoted => {
                words.push(std::mem::take(&mut word));
            }
            letter => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_words_are_what_a_reader_sees() {
        let page = "text\n```sh on {node}\na b\n\nc \"d e\"  # exit code 1\n```\nmore\n```json\n{}\n```\n```sh\nf\n```\n```text\ng\n```\n```text on {node}\nh\n```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 3);
        assert!(found[2].by_hand && !found[0].by_hand);
        assert_eq!(
            (found[2].info.as_str(), found[2].lines.len()),
            ("on {node}", 1)
        );
        assert_eq!(found[0].info, "on {node}");
        assert_eq!(found[0].lines.len(), 2);
        assert_eq!(words("c \"d e\" f"), ["c", "d e", "f"]);
        assert_eq!(words(" g  \"$(h i)\":/j"), ["g", "$(h i):/j"]);
        assert_eq!(found[1].info, "");
    }
}
