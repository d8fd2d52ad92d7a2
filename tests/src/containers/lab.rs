//! Names and images, and the end of everything that was made.

use std::net::IpAddr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::docker::docker;
use super::store::Server;
use crate::wait::wait_until;

/// The label of everything that is made here; its value is the run of `.ci/containers`, or of this process.
pub const LABEL: &str = "confman-test";
const LOG_LINES_SHOWN: &str = "60";

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

#[derive(Debug, Default)]
struct Made {
    containers: Vec<String>,
    volumes: Vec<String>,
}

/// One network and what is on it.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    label: String,
    made: Mutex<Made>,
    finished: Mutex<bool>,
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
            label: format!("{LABEL}={run}"),
            made: Mutex::default(),
            finished: Mutex::new(false),
        };
        docker(&["network", "create", "--label", &lab.label, &lab.prefix]).await?;
        Ok(lab)
    }

    /// The full name of a container or volume.
    #[must_use]
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.prefix
    }

    /// This machine, as what is in the network reaches it.
    ///
    /// # Errors
    /// Docker does not say.
    pub async fn gateway(&self) -> anyhow::Result<IpAddr> {
        let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
        let printed = docker(&["network", "inspect", "--format", format, &self.prefix]).await?;
        printed
            .parse()
            .with_context(|| format!("no address: {printed:?}"))
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn volume(&self, short: &str) -> anyhow::Result<String> {
        let name = self.name(short);
        self.made().volumes.push(name.clone());
        docker(&["volume", "create", "--label", &self.label, &name]).await?;
        Ok(name)
    }

    /// Makes a container without starting it; `args` are the options, the image, its arguments.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn create(&self, short: &str, args: &[&str]) -> anyhow::Result<String> {
        let name = self.name(short);
        self.remember(&name);
        let head = ["create", "--name", &name, "--label", &self.label];
        docker(&[&head, args].concat()).await?;
        Ok(name)
    }

    /// Runs a container to its end; gives what it printed.
    ///
    /// # Errors
    /// It fails.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let head = ["run", "--rm", "--label", &self.label];
        docker(&[&head, args].concat()).await
    }

    /// Makes a pod, which holds the network of others, and starts it; gives its address. `alias` is its name in the network,
    /// `port` is reachable from this machine.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn pod(&self, tools: &str, alias: &str, port: u16) -> anyhow::Result<Pod> {
        let short = format!("{alias}-pod");
        let publish = format!("127.0.0.1::{port}");
        let args = [
            "--network",
            self.network(),
            "--network-alias",
            alias,
            "--hostname",
            alias,
            "--cap-add",
            "NET_ADMIN",
            "--publish",
            &publish,
            tools,
            "sleep",
            "infinity",
        ];
        let container = self.create(&short, &args).await?;
        docker(&["start", &container]).await?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(&["inspect", "--format", format, &container]).await?;
        let published = docker(&["port", &container, &format!("{port}/tcp")]).await?;
        let published = published.lines().next().context("no port is published")?;
        Ok(Pod {
            container,
            address,
            published: format!("http://{published}"),
        })
    }

    /// Waits until a container has logged this.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_log(&self, short: &str, text: &str, bound: Duration) -> anyhow::Result<()> {
        let name = self.name(short);
        wait_until(&format!("{name} logs {text:?}"), bound, || async {
            let log = super::docker::logs(&name).await?;
            anyhow::ensure!(log.contains(text), "it has not");
            Ok(())
        })
        .await
    }

    /// Ends the test well: nobody needs to see the logs.
    pub fn finish(&self) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Written down before it is made.
    fn remember(&self, container: &str) {
        let mut made = self.made();
        if !made.containers.iter().any(|known| known == container) {
            made.containers.push(container.to_owned());
        }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let finished = *self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not there, or was never made, is gone.
        let run = |args: &[&str]| Command::new("docker").args(args).output();
        let made = self.made();
        if !finished {
            for name in made.containers.iter().filter(|n| !n.ends_with("-pod")) {
                eprintln!("---- {name} ----");
                if let Ok(logs) = run(&["logs", "--tail", LOG_LINES_SHOWN, name]) {
                    eprint!("{}", String::from_utf8_lossy(&logs.stdout));
                    eprint!("{}", String::from_utf8_lossy(&logs.stderr));
                }
            }
        }
        for name in made.containers.iter().rev() {
            let _ = run(&["rm", "--force", "--volumes", name]);
        }
        for name in &made.volumes {
            let _ = run(&["volume", "rm", "--force", name]);
        }
        let _ = run(&["network", "rm", &self.prefix]);
    }
}

/// A container that holds the network of others.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The container.
    pub container: String,
    /// Its address in the network.
    pub address: String,
    /// Its port as this machine reaches it, as a URL.
    pub published: String,
}
