//! Whether one node is alive, and ready: asked without a key, answered by the node alone.

use crate::{Client, ClientError, Endpoint, client::PROBE_MAX, wire::Readiness};

impl Client {
    /// Whether a node is ready; it also answers when it is not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn readiness(&self, endpoint: &Endpoint) -> Result<Readiness, ClientError> {
        let url = endpoint
            .url("/health/ready")
            .map_err(|_| no_health(endpoint, "no URL".to_owned()))?;
        let response = tokio::time::timeout(PROBE_MAX, self.http.get(url).send());
        let response = match response.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(self.unreachable(
                    endpoint,
                    "/health/ready",
                    crate::body::chain(&error),
                ));
            }
            Err(_) => {
                return Err(self.unreachable(
                    endpoint,
                    "/health/ready",
                    "no answer in time".to_owned(),
                ));
            }
        };
        let body = crate::Download::new(endpoint.clone(), response)
            .bytes(1 << 20)
            .await?;
        serde_json::from_slice(&body).map_err(|error| match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem {
                endpoint: endpoint.to_string(),
                problem: Box::new(problem),
            },
            Err(_) => no_health(endpoint, error.to_string()),
        })
    }

    /// Whether a node is alive. Needs no key and sends none.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] or [`ClientError::Answer`].
    pub async fn health(&self, endpoint: &Endpoint) -> Result<(), ClientError> {
        let url = endpoint
            .url("/health")
            .map_err(|_| no_health(endpoint, "no URL".to_owned()))?;
        match tokio::time::timeout(PROBE_MAX, self.http.get(url).send()).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(no_health(endpoint, format!("status {}", response.status()))),
            Ok(Err(error)) => {
                Err(self.unreachable(endpoint, "/health", crate::body::chain(&error)))
            }
            Err(_) => Err(self.unreachable(endpoint, "/health", "no answer in time".to_owned())),
        }
    }

    fn unreachable(&self, endpoint: &Endpoint, path: &str, why: String) -> ClientError {
        ClientError::Unreachable {
            method: "GET".to_owned(),
            path: path.to_owned(),
            seconds: PROBE_MAX.as_secs_f64(),
            last: format!("{endpoint}: {why}"),
        }
    }
}

fn no_health(endpoint: &Endpoint, why: String) -> ClientError {
    ClientError::Answer {
        endpoint: endpoint.to_string(),
        why,
    }
}
