//! Asking nodes whether they live, and what they say of themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use confman_cli::failure::Failure;
use confman_client::{
    Client, ClientConfig, ClientError, ClientTls, Endpoint, ErrorKind, parse_endpoints,
};
use confman_config::SecretString;
use futures::future::join_all;

use super::collect::now;
use super::collection::Live;
use super::plan::Plan;
use crate::codes;
use crate::context::Global;
use crate::endpoints;
use crate::not_ours::NotOurs;

/// Most words of an error that are kept, in characters.
const WHY_MAX: usize = 300;

/// Whom to ask before a plan is carried out or taken back.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// Nodes to ask whether they live: URLs with commas between [default: CONFMAN_ENDPOINTS, and all members of the plan]
    #[arg(long, value_name = "URLS")]
    endpoints: Option<String>,
    /// File that holds the API key [default: CONFMAN_API_KEY or CONFMAN_API_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    not_ours: NotOurs,
}

impl AskArgs {
    /// The URLs that the operator names, and as whom to ask. What the plan says of foreign addresses holds on.
    pub(super) fn given(
        &self,
        plan: &Plan,
        global: &Global,
    ) -> Result<(Vec<String>, Caller), Failure> {
        let mut not_ours = self.not_ours.clone();
        not_ours.extend(&plan.accepted.not_ours);
        given(
            self.endpoints.as_deref(),
            self.api_key_file.as_deref(),
            not_ours,
            global,
        )
    }
}

/// As whom nodes are asked.
pub(super) struct Caller {
    key: Option<SecretString>,
    tls: ClientTls,
    not_ours: NotOurs,
    global: Global,
}

/// Whoever answers for another cluster. Each is told once, without being asked for: the addresses may be the wrong ones.
#[derive(Debug, Default)]
pub(super) struct Foreign(BTreeSet<String>);

impl Foreign {
    /// Whether what answered is of another cluster than that of this uuid.
    pub(super) fn holds(&mut self, live: &Live, cluster_uuid: &str) -> bool {
        if !live.is_foreign(cluster_uuid) {
            return false;
        }
        if self.0.insert(live.url.clone()) {
            crate::context::say(format!("note: {}", live.foreign_words()));
        }
        true
    }
}

impl Caller {
    /// What to do about a node that lives and does not say more: `why` it did not.
    pub(super) fn hint(&self, why: &str) -> String {
        match self.key {
            None => "give the API key (--api-key-file, or CONFMAN_API_KEY), so that it can say of which life it is".to_owned(),
            Some(_) => format!(
                "it did not take the API key that was given, or could not answer ({why}): give one of this cluster's (--api-key-file, or CONFMAN_API_KEY); a node that is not to live any more is to be stopped"
            ),
        }
    }
}

/// The URLs that the operator names, and as whom to ask.
pub(super) fn given(
    endpoints: Option<&str>,
    api_key_file: Option<&Path>,
    not_ours: NotOurs,
    global: &Global,
) -> Result<(Vec<String>, Caller), Failure> {
    let (urls, target) = endpoints::named(endpoints, api_key_file, global)?;
    let caller = Caller {
        key: target.api_key,
        tls: target.tls,
        not_ours,
        global: global.clone(),
    };
    Ok((urls, caller))
}

/// What each address says, all asked at once.
///
/// # Errors
/// Something lives at an address and shakes no hands with this program, and the operator has not said that it is none of
/// ours: it may be a node that must not be recovered from.
pub(super) async fn ask(urls: &[String], caller: &Caller) -> Result<Vec<Live>, Failure> {
    let asking = join_all(urls.iter().map(|url| ask_one(url, caller)));
    let asked = caller
        .global
        .during("the nodes are asked whether they live", asking)
        .await;
    asked.into_iter().collect()
}

fn unshaken(url: &str, error: &ClientError) -> Failure {
    let text = format!("{url} cannot be asked whether it lives: {error}");
    codes::refuse("RECOVER_TLS", ErrorKind::Refused, text)
        .with_hint(NotOurs::hint(error.hint().as_deref(), url))
}

async fn ask_one(url: &str, caller: &Caller) -> Result<Live, Failure> {
    let mut live = Live {
        url: url.trim_end_matches('/').to_owned(),
        asked_at: now(),
        status: None,
        readiness: None,
        why: None,
        not_ours: false,
    };
    let mut failed = None;
    let asked = async {
        let endpoints: Vec<Endpoint> = parse_endpoints(url).map_err(|e| e.to_string())?;
        let endpoint = endpoints.first().cloned().ok_or("no endpoint")?;
        let mut config = ClientConfig::new(endpoints);
        config.api_key = caller.key.clone();
        config.tls = caller.tls.clone();
        config.deadline = Duration::from_secs(5);
        let client = Client::new(config).map_err(|e| e.to_string())?;
        match client.readiness(&endpoint).await {
            Ok(readiness) => live.readiness = Some(readiness),
            Err(error) if error.somebody_is_there() => {
                // A node of ours that shows itself counts, whatever was said of its address.
                live.not_ours = caller.not_ours.holds(url);
                if !live.not_ours {
                    failed = Some(unshaken(url, &error));
                }
                return Err(error.to_string());
            }
            Err(_) => return Err("no answer".to_owned()),
        }
        let status = client.status(Some(&endpoint)).await;
        live.status = Some(status.map_err(|e| e.to_string())?.value);
        Ok::<(), String>(())
    };
    live.why = asked
        .await
        .err()
        .map(|why| why.chars().take(WHY_MAX).collect());
    failed.map_or(Ok(live), Err)
}
