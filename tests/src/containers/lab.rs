//! Names and images, and the end of everything that was made.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{ExecCommand, IntoContainerPort as _, Mount, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use super::docker::{Engine, within};
use super::store::Server;

/// The label of everything that is made here; its value is the run of `.ci/containers`, or of this process.
pub const LABEL: &str = "confman-test";
const LOG_LINES_SHOWN: usize = 60;
/// Seconds that a container may take to leave by itself.
const STOP_SECONDS: i32 = 15;
const LOOPBACK: &str = "127.0.0.1";

/// The images that `.ci/containers` makes and names.
#[derive(Debug, Clone)]
pub struct Images {
    /// `confman` and `drtool`: `CONTAINER_TEST_NODE`.
    pub node: String,
    /// The image that a node is upgraded to: `CONTAINER_TEST_UPGRADE`.
    pub upgrade: String,
    /// The object store: `CONTAINER_TEST_STORE`.
    pub store: String,
    /// Which server that is: `CONTAINER_TEST_STORE_SERVER`.
    pub server: Server,
    /// A shell, nft and tc: `CONTAINER_TEST_TOOLS`.
    pub tools: String,
}

impl Images {
    /// From the environment.
    ///
    /// # Errors
    /// One is not named.
    pub fn from_env() -> anyhow::Result<Self> {
        let image = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: run .ci/containers"))
        };
        Ok(Self {
            node: image("CONTAINER_TEST_NODE")?,
            upgrade: image("CONTAINER_TEST_UPGRADE")?,
            store: image("CONTAINER_TEST_STORE")?,
            server: Server::named(&image("CONTAINER_TEST_STORE_SERVER")?)?,
            tools: image("CONTAINER_TEST_TOOLS")?,
        })
    }
}

/// An image by the name that Docker knows it by.
pub fn image(name: &str) -> GenericImage {
    let (name, tag) = match name.rsplit_once(':') {
        // A registry's port is no tag; a digest is taken for one, and comes out as it went in.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    GenericImage::new(name, tag)
}

/// A volume as a container sees it.
#[must_use]
pub fn mount(volume: &str, target: &str) -> Mount {
    Mount::volume_mount(volume, target)
}

/// A container that was started, and may be down since.
#[derive(Debug, Clone)]
pub struct Machine(Arc<ContainerAsync<GenericImage>>);

impl Machine {
    /// Starts it again.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(&self) -> anyhow::Result<()> {
        within(format!("start {}", self.0.id()), self.0.start()).await
    }

    /// kill -9.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self) -> anyhow::Result<()> {
        Engine::connect().await?.kill(self.0.id()).await
    }

    /// Freezes every process of it.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self) -> anyhow::Result<()> {
        within(format!("pause {}", self.0.id()), self.0.pause()).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub async fn unpause(&self) -> anyhow::Result<()> {
        within(format!("unpause {}", self.0.id()), self.0.unpause()).await
    }

    /// Asks it to stop, and checks that it left by itself.
    ///
    /// # Errors
    /// It had to be killed, or ended in another way.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let id = self.0.id();
        let asked = self.0.stop_with_timeout(Some(STOP_SECONDS));
        within(format!("stop {id}"), asked).await?;
        let code = within(format!("look at {id}"), self.0.exit_code()).await?;
        ensure!(code == Some(0), "{id} ended with {code:?}");
        Ok(())
    }

    /// Runs a program in it; gives what that printed.
    ///
    /// # Errors
    /// It fails, or does not end in time.
    pub async fn exec(&self, program: &[&str]) -> anyhow::Result<String> {
        let what = program.join(" ");
        let (code, printed, complaint) = within(&what, async {
            let mut ran = self
                .0
                .exec(ExecCommand::new(program.iter().copied()))
                .await?;
            // Both to their ends: then it has ended.
            let printed = ran.stdout_to_vec().await?;
            let complaint = ran.stderr_to_vec().await?;
            anyhow::Ok((ran.exit_code().await?, printed, complaint))
        })
        .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            code == Some(0),
            "{what}: ended with {code:?}: {}",
            text(&complaint)
        );
        Ok(text(&printed))
    }

    /// What it has logged, both streams.
    ///
    /// # Errors
    /// Docker does not answer.
    pub async fn logs(&self) -> anyhow::Result<String> {
        let (printed, complaint) = within("read a container's log", async {
            let printed = self.0.stdout_to_vec().await?;
            anyhow::Ok((printed, self.0.stderr_to_vec().await?))
        })
        .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(text(&printed) + &text(&complaint))
    }
}

#[derive(Debug, Default)]
struct Made {
    machines: BTreeMap<String, Machine>,
    volumes: Vec<String>,
    finished: bool,
}

/// One network and what is on it.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    run: String,
    engine: Engine,
    made: Mutex<Made>,
}

impl Lab {
    /// A network of its own.
    ///
    /// # Errors
    /// Docker does not answer, or has no network left.
    pub async fn new(name: &str) -> anyhow::Result<Self> {
        let run = std::env::var("CONTAINER_TEST_RUN");
        let run = run.unwrap_or_else(|_| std::process::id().to_string());
        let lab = Self {
            prefix: format!("confman-test-{run}-{name}"),
            run,
            engine: Engine::connect().await?,
            made: Mutex::default(),
        };
        // Not left to `testcontainers`, whose networks bear no label by which one that stayed is found.
        lab.engine.make_network(&lab.prefix, lab.label()).await?;
        Ok(lab)
    }

    /// The full name of a container or volume; of a container it is its name in the network too.
    #[must_use]
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    fn label(&self) -> (&str, &str) {
        (LABEL, &self.run)
    }

    /// This machine, as what is in the network reaches it.
    ///
    /// # Errors
    /// Docker does not say.
    pub async fn gateway(&self) -> anyhow::Result<IpAddr> {
        let address = self.engine.gateway(&self.prefix).await?;
        address
            .parse()
            .with_context(|| format!("no address: {address:?}"))
    }

    /// Makes a volume, if there is none of that name.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn volume(&self, short: &str) -> anyhow::Result<String> {
        let name = self.name(short);
        self.with_made(|made| {
            if !made.volumes.contains(&name) {
                made.volumes.push(name.clone());
            }
        });
        self.engine.make_volume(&name, self.label()).await?;
        Ok(name)
    }

    /// Removes a volume that nobody has any more.
    ///
    /// # Errors
    /// Somebody has it.
    pub async fn remove_volume(&self, short: &str) -> anyhow::Result<()> {
        self.engine.remove_volume(&self.name(short)).await
    }

    /// Makes a container of that name and starts it.
    ///
    /// # Errors
    /// There is one of that name, or it cannot be made.
    pub async fn start(
        &self,
        short: &str,
        request: impl Into<ContainerRequest<GenericImage>>,
    ) -> anyhow::Result<Machine> {
        let name = self.name(short);
        let (key, value) = self.label();
        let request = request.into().with_container_name(&name);
        let asked = request.with_label(key, value).start();
        let machine = Machine(Arc::new(within(format!("start {name}"), asked).await?));
        self.with_made(|made| made.machines.insert(short.to_owned(), machine.clone()));
        Ok(machine)
    }

    /// The container of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn machine(&self, short: &str) -> anyhow::Result<Machine> {
        let found = self.with_made(|made| made.machines.get(short).cloned());
        found.with_context(|| format!("there is no {}", self.name(short)))
    }

    /// Removes a container, running or not; its volumes stay.
    ///
    /// # Errors
    /// There is none of that name, or somebody still has it in hand.
    pub async fn remove(&self, short: &str) -> anyhow::Result<()> {
        let name = self.name(short);
        let found = self.with_made(|made| made.machines.remove(short));
        let machine = found.with_context(|| format!("there is no {name}"))?;
        let container = Arc::into_inner(machine.0);
        let container = container.with_context(|| format!("{name} is in use"))?;
        within(format!("remove {name}"), container.rm()).await
    }

    /// Runs a container to its good end; gives what it printed.
    ///
    /// # Errors
    /// It fails.
    pub async fn run(
        &self,
        short: &str,
        request: impl Into<ContainerRequest<GenericImage>>,
    ) -> anyhow::Result<String> {
        let ended = WaitFor::exit(ExitWaitStrategy::new().with_exit_code(0));
        let request = request.into().with_ready_conditions(vec![ended]);
        let printed = self.start(short, request).await?.logs().await;
        self.remove(short).await?;
        printed
    }

    /// Makes a pod, which holds the network of others, and starts it. `port` is reachable from this machine alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn pod(&self, tools: &str, name: &str, port: u16) -> anyhow::Result<Pod> {
        let short = format!("{name}-pod");
        let request = image(tools)
            .with_exposed_port(port.tcp())
            .with_cmd(["sleep", "infinity"])
            .with_network(&self.prefix)
            .with_cap_add("NET_ADMIN")
            .with_host_config_modifier(move |config| {
                let here = PortBinding {
                    host_ip: Some(LOOPBACK.to_owned()),
                    host_port: None,
                };
                let bindings = HashMap::from([(format!("{port}/tcp"), Some(vec![here]))]);
                config.publish_all_ports = None;
                config.port_bindings = Some(bindings);
            });
        let machine = self.start(&short, request).await?;
        let id = machine.0.id();
        let address = self.engine.address(id).await?;
        let asked = machine.0.get_host_port_ipv4(port);
        let published = within(format!("look at the ports of {short}"), asked).await?;
        Ok(Pod {
            host: self.name(&short),
            network: format!("container:{id}"),
            address,
            published: format!("http://{LOOPBACK}:{published}"),
            machine,
        })
    }

    /// Ends the test well: nobody needs to see the logs.
    pub fn finish(&self) {
        self.with_made(|made| made.finished = true);
    }

    fn with_made<T>(&self, does: impl FnOnce(&mut Made) -> T) -> T {
        does(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last lines of everybody but the pods, which say nothing.
    async fn show_logs(&self, machines: &BTreeMap<String, Machine>) {
        for (short, machine) in machines {
            if short.ends_with("-pod") {
                continue;
            }
            let logs = machine.logs().await;
            let logs = logs.unwrap_or_else(|error| format!("no log: {error:#}"));
            let lines: Vec<&str> = logs.lines().collect();
            eprintln!("---- {} ----", self.name(short));
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Lab {
    /// In a runtime of many threads, which every story has: `testcontainers` removes a container where it is dropped and waits for it
    /// there too. Volumes and network go when nobody is in them any more.
    fn drop(&mut self) {
        let made = self.with_made(std::mem::take);
        if !made.finished {
            wait_here(self.show_logs(&made.machines));
        }
        drop(made.machines);
        wait_here(async {
            for volume in &made.volumes {
                complain(self.engine.remove_volume(volume).await);
            }
            complain(self.engine.remove_network(&self.prefix).await);
        });
    }
}

fn wait_here<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

fn complain(ended: anyhow::Result<()>) {
    if let Err(error) = ended {
        eprintln!("{error:#}");
    }
}

/// A container that holds the network of others.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name in the network.
    pub host: String,
    /// Its address there.
    pub address: String,
    /// Its port as this machine reaches it, as a URL.
    pub published: String,
    /// The container.
    pub(super) machine: Machine,
    network: String,
}

impl Pod {
    /// What is to be in its network.
    pub fn holds(
        &self,
        request: impl Into<ContainerRequest<GenericImage>>,
    ) -> ContainerRequest<GenericImage> {
        let network = self.network.clone();
        // Not as the name of a network, which `testcontainers` would make. Ports are the pod's to publish.
        request.into().with_host_config_modifier(move |config| {
            config.network_mode = Some(network.clone());
            config.publish_all_ports = None;
            config.port_bindings = None;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_the_name_that_it_was_given() {
        for (given, known) in [
            ("node:1", "node:1"),
            ("node", "node:latest"),
            ("here:5000/node", "here:5000/node:latest"),
            ("here:5000/node:2@sha256:ab", "here:5000/node:2@sha256:ab"),
        ] {
            assert_eq!(ContainerRequest::from(image(given)).descriptor(), known);
        }
    }
}
