//! What `testcontainers` has no words for, asked of Docker through the client that it has, and a limit to all that is asked.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;

/// What one call may take: starting a container on a machine that is busy with others.
pub(super) const WITHIN: Duration = Duration::from_secs(90);

/// Waits for what is asked of Docker, and not for ever.
///
/// # Errors
/// It fails, or does not end in time; both name `what`.
pub(super) async fn within<T, E: Into<anyhow::Error>>(
    what: impl Display,
    asked: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    let answered = tokio::time::timeout(WITHIN, asked).await;
    let answered = answered.with_context(|| format!("{what} did not end within {WITHIN:?}"))?;
    answered
        .map_err(Into::into)
        .with_context(|| what.to_string())
}

/// Docker itself.
#[derive(Debug)]
pub(super) struct Engine(Docker);

impl Engine {
    /// The one that `testcontainers` speaks to.
    pub(super) async fn connect() -> anyhow::Result<Self> {
        let engine = within("connect to Docker", docker_client_instance()).await?;
        Ok(Self(engine))
    }

    /// Makes a network.
    pub(super) async fn make_network(&self, name: &str, label: (&str, &str)) -> anyhow::Result<()> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(one(label)),
            ..NetworkCreateRequest::default()
        };
        let asked = self.0.create_network(request);
        within(format!("make the network {name}"), asked).await?;
        Ok(())
    }

    /// The address that this machine has in a network.
    pub(super) async fn gateway(&self, network: &str) -> anyhow::Result<String> {
        let asked = self.0.inspect_network(network, None);
        let found = within(format!("look at the network {network}"), asked).await?;
        let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let gateway = configs.into_iter().find_map(|config| config.gateway);
        gateway.with_context(|| format!("{network} has no gateway"))
    }

    /// Removes a network that nobody is in.
    pub(super) async fn remove_network(&self, name: &str) -> anyhow::Result<()> {
        let asked = self.0.remove_network(name);
        within(format!("remove the network {name}"), asked).await
    }

    /// Makes a volume, or takes the one that there is.
    pub(super) async fn make_volume(&self, name: &str, label: (&str, &str)) -> anyhow::Result<()> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(one(label)),
            ..VolumeCreateRequest::default()
        };
        let asked = self.0.create_volume(request);
        within(format!("make the volume {name}"), asked).await?;
        Ok(())
    }

    /// Removes a volume that nobody has.
    pub(super) async fn remove_volume(&self, name: &str) -> anyhow::Result<()> {
        let options = RemoveVolumeOptionsBuilder::new().build();
        let asked = self.0.remove_volume(name, Some(options));
        within(format!("remove the volume {name}"), asked).await
    }

    /// kill -9: what stops a container in the words of `testcontainers` lets it know first.
    pub(super) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        let asked = self.0.kill_container(name, Some(options));
        within(format!("kill {name}"), asked).await
    }

    /// Removes a container by its name, if there is one.
    pub(super) async fn remove_container(&self, name: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let asked = self.0.remove_container(name, Some(options));
        let removed = async {
            match asked.await {
                Err(Error::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(()),
                ended => ended,
            }
        };
        within(format!("remove {name}"), removed).await
    }
}

fn one((key, value): (&str, &str)) -> HashMap<String, String> {
    HashMap::from([(key.to_owned(), value.to_owned())])
}
