//! Every node's own account of itself, asked of each node and of nobody else.
//!
//! Promises: a node that does not answer is in the list with the reason; replicas that were asked at different moments
//! are asked again for their hash at one common position, so that they can be compared while writes go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use confman_cli::failure::Failure;
use confman_client::wire::{ExpectedMember, Readiness, StateHashAt, Status};
use confman_client::{Client, ClientError, Endpoint};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

/// As many positions back a replica remembers its hashes.
const REMEMBERED: u64 = 16_384;

/// The group that knows the members.
const META: &str = "__meta/0";
/// How long its leader gets to say whom it waits for: as long as a node for its account.
const EXPECTED_WITHIN: Duration = Duration::from_secs(5);

/// What one node said, or why it said nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    /// Where it was asked.
    pub(crate) endpoint: String,
    /// Its own view of itself.
    pub(crate) status: Option<Status>,
    /// What it says it waits for.
    pub(crate) readiness: Option<Readiness>,
    /// Its hashes at positions where others were asked for theirs.
    pub(crate) hashes: Vec<StateHashAt>,
    /// Why there is no status.
    pub(crate) error: Option<String>,
    /// Whether it answered, and refused: most often the key.
    #[serde(skip)]
    pub(crate) refused: bool,
}

/// What the cluster was asked, all at the same time as far as it goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Asked {
    /// Each node's account.
    pub(crate) nodes: Vec<Account>,
    /// Names that may join and have not, by the leader of `__meta/0`; none when it did not tell.
    pub(crate) expected: Option<Vec<ExpectedMember>>,
}

/// Asks the given endpoints, then the members that those name. That all of them refuse is an error: a wrong key is the
/// caller's to mend, and says nothing about the cluster's health.
pub(crate) async fn ask_all(client: &Client) -> Result<Asked, Failure> {
    match ask_each(client).await {
        (asked, Some(refusal)) if asked.nodes.iter().all(|node| node.status.is_none()) => {
            Err(refusal.into())
        }
        (asked, _) => Ok(asked),
    }
}

/// The same, with the last refusal beside what the others said.
pub(crate) async fn ask_each(client: &Client) -> (Asked, Option<ClientError>) {
    let mut accounts = Vec::new();
    let mut asked = BTreeSet::new();
    let mut refusal: Option<ClientError> = None;
    loop {
        let next: Vec<Endpoint> = client
            .known_endpoints()
            .into_iter()
            .filter(|endpoint| asked.insert(endpoint.clone()))
            .collect();
        if next.is_empty() {
            break;
        }
        for (account, refused) in join_all(next.iter().map(|e| ask_one(client, e))).await {
            refusal = refused.or(refusal);
            accounts.push(account);
        }
    }
    let expected = expected(client, &accounts).await;
    compare_hashes(client, &mut accounts).await;
    accounts.sort_by(|a, b| order(a).cmp(&order(b)));
    let asked = Asked {
        nodes: accounts,
        expected,
    };
    (asked, refusal)
}

/// Whom the cluster still waits for. Nobody is asked where no leader could answer, or where a node of a life that is over
/// might.
async fn expected(client: &Client, accounts: &[Account]) -> Option<Vec<ExpectedMember>> {
    let answered = || {
        accounts
            .iter()
            .filter_map(|account| account.status.as_ref())
    };
    let first = answered().next()?;
    let one_life = answered()
        .all(|s| s.cluster_uuid == first.cluster_uuid && s.incarnation == first.incarnation);
    let led = answered()
        .flat_map(|status| &status.groups)
        .any(|group| group.group == META && group.leader.is_some());
    if !one_life || !led {
        return None;
    }
    let asked = tokio::time::timeout(EXPECTED_WITHIN, client.members()).await;
    Some(asked.ok()?.ok()?.value.expected)
}

fn order(account: &Account) -> (bool, Option<&str>, &str) {
    let name = account.status.as_ref().map(|s| s.node.name.as_str());
    (name.is_none(), name, &account.endpoint)
}

async fn ask_one(client: &Client, endpoint: &Endpoint) -> (Account, Option<ClientError>) {
    let (status, readiness) =
        futures::join!(client.status(Some(endpoint)), client.readiness(endpoint));
    let (status, error) = match status {
        Ok(answered) => (Some(answered.value), None),
        Err(error) => (None, Some(error)),
    };
    let refusal = error.as_ref().filter(|error| error.problem().is_some());
    let account = Account {
        endpoint: endpoint.to_string(),
        refused: refusal.is_some(),
        status,
        readiness: readiness.ok(),
        hashes: Vec::new(),
        error: error.as_ref().map(ToString::to_string),
    };
    (account, error.filter(|error| error.problem().is_some()))
}

/// Asks replicas that are ahead of the slowest one for their hash where that one is.
async fn compare_hashes(client: &Client, accounts: &mut [Account]) {
    let common = common(accounts);
    let found = join_all(
        accounts
            .iter()
            .map(|account| hashes_of(client, account, &common)),
    )
    .await;
    for (account, hashes) in accounts.iter_mut().zip(found) {
        account.hashes = hashes;
    }
}

/// For each group the position to compare at: the lowest one that is within what the highest remembers.
fn common(accounts: &[Account]) -> BTreeMap<String, u64> {
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for group in accounts
        .iter()
        .filter_map(|a| a.status.as_ref())
        .flat_map(|s| &s.groups)
    {
        places
            .entry(group.group.clone())
            .or_default()
            .push(group.state_hash.index);
    }
    places
        .into_iter()
        .filter_map(|(group, places)| {
            let highest = places.iter().copied().max()?;
            let lowest = places
                .into_iter()
                .filter(|index| index + REMEMBERED > highest)
                .min()?;
            Some((group, lowest))
        })
        .collect()
}

async fn hashes_of(
    client: &Client,
    account: &Account,
    common: &BTreeMap<String, u64>,
) -> Vec<StateHashAt> {
    let (Some(status), Ok(endpoint)) = (&account.status, account.endpoint.parse::<Endpoint>())
    else {
        return Vec::new();
    };
    let asked = status.groups.iter().filter_map(|group| {
        let index = *common.get(&group.group)?;
        (group.state_hash.index > index).then(|| client.state_hash(&endpoint, &group.group, index))
    });
    // What a node does not say about a position is left out: it is unknown.
    join_all(asked.collect::<Vec<_>>())
        .await
        .into_iter()
        .filter_map(|answer| Some(answer.ok()?.value))
        .collect()
}
