//! What the doctor looks at: nodes, store and clocks, asked at the same time, each within a bound. Reads only.

use std::ffi::OsString;
use std::time::Duration;

use confman_cli::failure::Failure;
use confman_client::wire::{ExpectedMember, PeerReach};
use confman_client::{Client, ClientError, DATE_STEP_US, Endpoint, date_of};
use confman_snapshot::{ClusterId, GroupId, SnapshotId};
use futures::StreamExt as _;
use futures::future::join_all;
use jiff::Timestamp;

use super::clocks::Clock;
use crate::context::Global;
use crate::drill::last::{self, Drills};
use crate::live::account::{self, Account, Asked};
use crate::live::report::Report;
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// How long the store gets for each of its two rounds of questions.
const STORE_WITHIN: Duration = Duration::from_secs(10);
/// How long a server gets to say what time it is.
const DATE_WITHIN: Duration = Duration::from_secs(3);
/// Snapshots that are opened at the same time.
const OPEN_AT_ONCE: usize = 8;

/// An error as its author told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) code: Option<&'static str>,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Told {
                message,
                hint,
                code,
                ..
            } => Self {
                code,
                what: message,
                hint,
            },
            Failure::PipeClosed => Self {
                code: None,
                what: failure.to_string(),
                hint: None,
            },
        }
    }
}

/// What the nodes said.
#[derive(Debug, Default)]
pub(super) struct ClusterFacts {
    /// Why nobody could be asked.
    pub(super) unasked: Option<Told>,
    pub(super) accounts: Vec<Account>,
    /// Names that may join and have not; none when nobody told.
    pub(super) expected: Option<Vec<ExpectedMember>>,
    /// Whether a key was sent, and why a node refused it.
    pub(super) refusal: Option<Told>,
    /// Whom each node reaches, by its name.
    pub(super) peers: Vec<(String, Result<Vec<PeerReach>, String>)>,
    pub(super) clocks: Vec<Clock>,
}

/// What the store said.
#[derive(Debug)]
pub(super) enum StoreFacts {
    NotNamed,
    Failed(Told),
    Read(Box<StoreRead>),
}

/// A store that answered.
#[derive(Debug)]
pub(super) struct StoreRead {
    pub(super) url: String,
    /// Variables that it does not know.
    pub(super) ignored: Vec<String>,
    /// Whose the prefix is, highest incarnation first.
    pub(super) owners: Vec<ClusterId>,
    /// How long the first answer took.
    pub(super) seconds: f64,
    /// How many snapshots there are.
    pub(super) snapshots: usize,
    /// The newest of each group: what the group had recorded where a node told it, else what lies there.
    pub(super) newest: Vec<Newest>,
    /// Its clock; none when it could not be asked.
    pub(super) clock: Result<Clock, String>,
    /// What it keeps of drills.
    pub(super) drills: Drills,
}

/// The newest snapshot of a group, as the store has it.
#[derive(Debug, Clone)]
pub(super) struct Newest {
    pub(super) group: String,
    pub(super) id: SnapshotId,
    /// Whether a node told of it.
    pub(super) recorded: bool,
    /// When it was made, in microseconds since 1970 UTC, by its manifest.
    pub(super) opened: Result<i64, Told>,
}

impl ClusterFacts {
    /// What `status` would judge.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            nodes: self.accounts.clone(),
            expected: self.expected.clone(),
        }
    }
}

/// Asks every node, and then those that answered about their peers and clocks.
pub(super) async fn cluster(client: Result<Client, Failure>) -> (ClusterFacts, Option<Client>) {
    let client = match client {
        Ok(client) => client,
        Err(failure) => {
            let facts = ClusterFacts {
                unasked: Some(failure.into()),
                ..ClusterFacts::default()
            };
            return (facts, None);
        }
    };
    let (asked, refusal) = account::ask_each(&client).await;
    let facts = ClusterFacts {
        accounts: asked.nodes,
        expected: asked.expected,
        refusal: refusal.map(|error| Failure::from(error).into()),
        ..ClusterFacts::default()
    };
    (facts, Some(client))
}

/// The second round: whom those reach that answered, and what time they think it is.
pub(super) async fn neighbours(client: &Client, facts: &mut ClusterFacts) {
    let nodes: Vec<(String, Endpoint)> = facts
        .accounts
        .iter()
        .filter_map(|account| {
            let name = account.status.as_ref()?.node.name.clone();
            Some((name, account.endpoint.parse().ok()?))
        })
        .collect();
    // First the clocks, alone: on connections that are open already, and not behind another question.
    let clocks = join_all(
        nodes
            .iter()
            .map(|(name, at)| clock_of_node(client, name, at)),
    )
    .await;
    facts.clocks = clocks.into_iter().flatten().collect();
    facts.peers = join_all(nodes.iter().map(|(name, at)| async move {
        let reach = client.peers(at).await;
        (name.clone(), reach.map(|a| a.value.items).map_err(words))
    }))
    .await;
}

fn words(error: ClientError) -> String {
    error.to_string()
}

async fn clock_of_node(client: &Client, name: &str, at: &Endpoint) -> Option<Clock> {
    let sent_us = now_us();
    let answered = client.status(Some(at)).await.ok()?;
    let answered_us = now_us();
    let told_us = answered.value.time?.as_us();
    let whose = format!("node {name}");
    Some(Clock::seen(whose, sent_us, answered_us, told_us, 0))
}

/// The store's first round: whose the prefix is, what lies there, what time it thinks it is.
pub(super) async fn store(
    args: &StoreArgs,
    env: Vec<(OsString, OsString)>,
    global: &Global,
) -> (StoreFacts, Option<StoreReader>) {
    if !args.is_named(global) {
        return (StoreFacts::NotNamed, None);
    }
    let reader = match args.reader_in(env, global).await {
        Ok(reader) => reader,
        Err(failure) => return (StoreFacts::Failed(failure.into()), None),
    };
    match in_time(&reader, read(&reader)).await {
        Ok(read) => (StoreFacts::Read(Box::new(read)), Some(reader)),
        Err(told) => (StoreFacts::Failed(told), None),
    }
}

async fn in_time<T>(
    reader: &StoreReader,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Told> {
    match tokio::time::timeout(STORE_WITHIN, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failure)) => Err(failure.into()),
        Err(_) => Err(Told {
            code: Some("STORE_UNREACHABLE"),
            what: format!("{} did not answer within {STORE_WITHIN:?}", reader.url()),
            hint: Some(
                "check AWS_ENDPOINT_URL, the network and the store itself; `drtool runbook store-unreachable`"
                    .to_owned(),
            ),
        }),
    }
}

async fn read(reader: &StoreReader) -> Result<StoreRead, Failure> {
    let begun = std::time::Instant::now();
    let owners = reader.clusters().await.map_err(|e| errors::store(&e))?;
    let seconds = begun.elapsed().as_secs_f64();
    let (inventory, clock, drills) = futures::join!(
        reader.inventory(),
        clock_of_store(reader),
        last::read(reader, now_us())
    );
    let inventory = inventory.map_err(|e| errors::store(&e))?;
    let newest = inventory.groups.iter().filter_map(|(group, listed)| {
        let newest = listed.first()?;
        Some((group.clone(), newest.id))
    });
    let newest: Vec<(GroupId, SnapshotId)> = newest.collect();
    Ok(StoreRead {
        url: reader.url().to_owned(),
        ignored: reader.settings().ignored.clone(),
        owners: owners.into_iter().map(|object| object.cluster).collect(),
        seconds,
        snapshots: inventory.groups.values().map(Vec::len).sum(),
        newest: open(reader, newest, false).await,
        clock,
        drills,
    })
}

/// The second round: whether the snapshots that the groups have recorded are there. They may be newer than the listing.
pub(super) async fn recorded(reader: &StoreReader, report: &Report, facts: &mut StoreFacts) {
    let StoreFacts::Read(read) = facts else {
        return;
    };
    let told = report.groups.iter().filter_map(|group| {
        let id = group.protected.as_ref()?.snapshot_id.parse().ok()?;
        Some((group.group.parse().ok()?, id))
    });
    let told: Vec<(GroupId, SnapshotId)> = told.collect();
    if told.is_empty() {
        return;
    }
    let asked = async { Ok(open(reader, told, true).await) };
    match in_time(reader, asked).await {
        Ok(newest) => read.newest = newest,
        Err(told) => *facts = StoreFacts::Failed(told),
    }
}

/// Opens them: footer, manifest and header are proven, a few kilobytes each.
async fn open(
    reader: &StoreReader,
    which: Vec<(GroupId, SnapshotId)>,
    recorded: bool,
) -> Vec<Newest> {
    futures::stream::iter(which)
        .map(|(group, id)| async move {
            let opened = reader.open(&group, &id).await;
            Newest {
                group: group.to_string(),
                opened: opened
                    .map(|snapshot| snapshot.manifest().created_us)
                    .map_err(|error| errors::snapshot(&error).into()),
                id,
                recorded,
            }
        })
        .buffered(OPEN_AT_ONCE)
        .collect()
        .await
}

async fn clock_of_store(reader: &StoreReader) -> Result<Clock, String> {
    let server = server_of(reader)?;
    let sent_us = now_us();
    let date = date_of(&server, DATE_WITHIN).await;
    let answered_us = now_us();
    let told_us = date.map_err(words)?.as_us();
    let whose = format!("store {}", reader.url());
    Ok(Clock::seen(
        whose,
        sent_us,
        answered_us,
        told_us,
        DATE_STEP_US,
    ))
}

/// The HTTP server behind a store.
fn server_of(reader: &StoreReader) -> Result<Endpoint, String> {
    let variable = |name: &str| {
        let found = reader.settings().in_force.iter().find(|v| v.name == name);
        found.map(|v| v.value.as_str())
    };
    let url = match reader.url().split("://").next() {
        Some("s3") => ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .into_iter()
            .find_map(variable)
            .map_or_else(
                || {
                    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
                    format!("https://s3.{}.amazonaws.com", region.unwrap_or("us-east-1"))
                },
                str::to_owned,
            ),
        Some("gs") => "https://storage.googleapis.com".to_owned(),
        _ => return Err("its clock cannot be seen without writing to it".to_owned()),
    };
    url.parse().map_err(|error: ClientError| error.to_string())
}

pub(super) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}
