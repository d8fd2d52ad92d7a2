//! Names and images, and the end of everything that was made.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{ExecCommand, IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use super::docker::{Engine, WITHIN, within};
use super::store::Server;
use crate::log_tail::log_tail;
use crate::wait::wait_until;

/// The label of everything that is made here; its value is the run of `.ci/containers`, or of this process.
pub(super) const LABEL: &str = "confman-test";
/// Seconds that a container may take to leave by itself.
const STOP_SECONDS: i32 = 15;
const LOOPBACK: &str = "127.0.0.1";

/// The images that `.ci/containers` makes and names.
#[derive(Debug)]
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
pub(super) fn image(name: &str) -> GenericImage {
    let (name, tag) = match name.rsplit_once(':') {
        // A registry's port is no tag; a digest is taken for one, and comes out as it went in.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    GenericImage::new(name, tag)
}

/// A container that was started, and may be down since.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    name: String,
    container: Arc<ContainerAsync<GenericImage>>,
}

impl Machine {
    /// Starts it again.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        within(format!("start {}", self.name), self.container.start()).await
    }

    /// kill -9.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        Engine::connect().await?.kill(&self.name).await
    }

    /// Freezes every process of it. Where a process is too busy to be caught, runc gives up ("unable to freeze") and lets all go on: it is
    /// then asked again.
    pub(super) async fn pause(&self) -> anyhow::Result<()> {
        let what = format!("{} is frozen", self.name);
        let asked = wait_until(&what, WITHIN, || async {
            match within(format!("pause {}", self.name), self.container.pause()).await {
                Err(error) if format!("{error:#}").contains("unable to freeze") => Err(error),
                other => Ok(other),
            }
        });
        asked.await?
    }

    /// Lets it go on.
    pub(super) async fn unpause(&self) -> anyhow::Result<()> {
        within(format!("unpause {}", self.name), self.container.unpause()).await
    }

    /// Asks it to stop, and checks that it left by itself.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let asked = self.container.stop_with_timeout(Some(STOP_SECONDS));
        within(format!("stop {}", self.name), asked).await?;
        let code = self.exit_code().await?;
        ensure!(code == Some(0), "{} ended with {code:?}", self.name);
        Ok(())
    }

    async fn exit_code(&self) -> anyhow::Result<Option<i64>> {
        let asked = self.container.exit_code();
        within(format!("look at {}", self.name), asked).await
    }

    /// Runs a program in it; gives what that printed.
    pub(super) async fn exec(&self, program: &[&str]) -> anyhow::Result<String> {
        let what = format!("in {}: {}", self.name, program.join(" "));
        let (code, printed, complaint) = within(&what, async {
            let command = ExecCommand::new(program.iter().copied());
            let mut ran = self.container.exec(command).await?;
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
    pub(super) async fn logs(&self) -> anyhow::Result<String> {
        let (printed, complaint) = within(format!("read the log of {}", self.name), async {
            let printed = self.container.stdout_to_vec().await?;
            anyhow::Ok((printed, self.container.stderr_to_vec().await?))
        })
        .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(text(&printed) + &text(&complaint))
    }
}

#[derive(Debug, Default)]
struct Made {
    machines: BTreeMap<String, Machine>,
    /// Asked for and not here yet: what was made and did not start is nobody's.
    asked: BTreeSet<String>,
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
        let name = self.name(short);
        self.engine.remove_volume(&name).await?;
        self.with_made(|made| made.volumes.retain(|known| *known != name));
        Ok(())
    }

    /// Makes a container of that name and starts it.
    ///
    /// # Errors
    /// There is one of that name, or it cannot be made.
    pub(super) async fn start(
        &self,
        short: &str,
        request: impl Into<ContainerRequest<GenericImage>>,
    ) -> anyhow::Result<Machine> {
        let name = self.name(short);
        let (key, value) = self.label();
        let request = request.into().with_container_name(&name);
        let request = request.with_label(key, value).with_startup_timeout(WITHIN);
        self.with_made(|made| made.asked.insert(name.clone()));
        let container = within(format!("start {name}"), request.start()).await?;
        let container = Arc::new(container);
        let machine = Machine {
            name: name.clone(),
            container,
        };
        self.with_made(|made| {
            made.asked.remove(&name);
            made.machines.insert(short.to_owned(), machine.clone())
        });
        Ok(machine)
    }

    /// The container of that name.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn machine(&self, short: &str) -> anyhow::Result<Machine> {
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
        let container = Arc::into_inner(machine.container);
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
        // Whatever its code is: one that failed is here then, and says why.
        let ended = WaitFor::exit(ExitWaitStrategy::new());
        let request = request.into().with_ready_conditions(vec![ended]);
        let machine = self.start(short, request).await?;
        let (printed, code) = (machine.logs().await?, machine.exit_code().await?);
        drop(machine);
        self.remove(short).await?;
        ensure!(
            code == Some(0),
            "{} ended with {code:?}: {printed}",
            self.name(short)
        );
        Ok(printed)
    }

    /// Makes a pod, which holds the network of others, and starts it. `port` is published on this machine's loopback.
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
        let asked = machine.container.get_bridge_ip_address();
        let address = within(format!("the address of {short}"), asked).await?;
        let asked = machine.container.get_host_port_ipv4(port);
        let published = within(format!("the port of {short}"), asked).await?;
        Ok(Pod {
            host: self.name(&short),
            network: format!("container:{}", machine.container.id()),
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

    /// The ends of the logs of everybody but the pods, which say nothing.
    async fn show_logs(&self, machines: &BTreeMap<String, Machine>) {
        for (short, machine) in machines {
            if short.ends_with("-pod") {
                continue;
            }
            let logs = machine.logs().await;
            let logs = logs.unwrap_or_else(|error| format!("no log: {error:#}"));
            eprint!("{}", log_tail(&self.name(short), &logs));
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
            for name in &made.asked {
                complain(self.engine.remove_container(name).await);
            }
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

/// A container that holds the network of others. It is gone when its [`Lab`] is, and must be dropped before that.
#[derive(Debug)]
pub struct Pod {
    /// Its name in the network.
    pub host: String,
    /// Its address there.
    pub address: IpAddr,
    /// Its port as this machine reaches it, as a URL.
    pub published: String,
    /// The container.
    pub(super) machine: Machine,
    network: String,
}

impl Pod {
    /// The same, in its network.
    pub(super) fn holds(
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
