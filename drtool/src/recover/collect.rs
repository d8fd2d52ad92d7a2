//! `recover collect`: directories, living nodes and the store, any mix of them, into one file.
//!
//! Promises: reads and nothing else; a place that does not answer is written down as one that did not answer. Every
//! address that a directory names is asked too, so that a cluster that lives is not taken for dead because nobody
//! thought of asking it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::wire::Time;
use confman_snapshot::model::{GroupId, Position};
use confman_snapshot::repository::Listed;

use super::ask::{ask, given};
use super::collection::{
    ClaimFacts, Collection, Directory, KIND, Live, StoreAccount, StoreSnapshot, VERSION,
};
use super::directory;
use crate::codes;
use crate::context::Global;
use crate::not_ours::NotOurs;
use crate::store::StoreArgs;
use crate::store::reader::StoreReader;

/// How long the store is given for its account.
const STORE_WITHIN: Duration = Duration::from_secs(20);
/// And more for each group.
const STORE_WITHIN_EACH: Duration = Duration::from_secs(1);
/// Most addresses that are asked.
const ASKED_MAX: usize = 200;
/// Most snapshots of a group that are tried until one can be opened.
const TRIED_MAX: usize = 5;
/// Most words of an error that are kept, in characters.
const WHY_MAX: usize = 300;

/// Write down what is left of a cluster: directories, living nodes, the store
///
/// Run it on each machine where a directory is (or where it is mounted), stop the nodes first, and give all
/// directories that there are: what is not collected counts as lost. Collections of several machines are put together
/// with --merge.
#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// Data directories of stopped nodes (CONFMAN_DATA_DIR)
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Collections made elsewhere, to be taken in
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// Nodes to ask: URLs with commas between [default: CONFMAN_ENDPOINTS, and all members that the directories name]
    #[arg(long, value_name = "URLS")]
    endpoints: Option<String>,
    /// File that holds the API key [default: CONFMAN_API_KEY or CONFMAN_API_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    not_ours: NotOurs,
    /// Ask no store, though one is named in the environment
    #[arg(long, conflicts_with = "store")]
    no_store: bool,
    /// Where to write it
    #[arg(long, short, value_name = "FILE", default_value = "collection.json")]
    out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: &CollectArgs, global: &Global) -> Result<ExitCode, Failure> {
    let asks_somebody = args.endpoints.is_some() || global.dev.is_some();
    if args.directories.is_empty() && args.merge.is_empty() && !asks_somebody {
        return Err(codes::usage(
            "ARGUMENT",
            "nothing to collect: no directory, no collection, no endpoint",
        )
        .with_hint("name the data directories that are left: drtool recover collect DIR..."));
    }
    let mut collection = Collection {
        kind: KIND.to_owned(),
        version: VERSION,
        collected_at: now(),
        directories: Vec::new(),
        live: Vec::new(),
        store: None,
    };
    for path in &args.merge {
        merge(&mut collection, Collection::read(path)?);
    }
    let bar = global.progress("read directories", args.directories.len() as u64);
    for path in &args.directories {
        global.note(format!("read {}", path.display()));
        let read = directory::read(path, now().as_us())?;
        take_in(&mut collection.directories, read);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let asked = ask_nodes(&collection, args, global).await?;
    collection
        .live
        .retain(|known| !asked.iter().any(|live| live.url == known.url));
    collection.live.extend(asked);
    let doing = "the store is asked what it has";
    let told = global
        .during(doing, ask_store(&collection, args, global))
        .await?;
    if let Some(account) = told {
        collection.store = better(Some(account), collection.store.take());
    }
    collection.write(&args.out, args.force)?;
    if global.json {
        output::json(&collection)?;
    } else {
        show(&collection, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time::from_us(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

fn merge(into: &mut Collection, other: Collection) {
    for directory in other.directories {
        take_in(&mut into.directories, directory);
    }
    for live in other.live {
        into.live.retain(|known| known.url != live.url);
        into.live.push(live);
    }
    into.store = better(into.store.take(), other.store);
}

/// Of two accounts of the store the one that knows more: what it proves to be missing must not be hidden by a reading that failed. Of two
/// that know alike the first.
fn better(one: Option<StoreAccount>, other: Option<StoreAccount>) -> Option<StoreAccount> {
    let knows = |account: &StoreAccount| {
        let ends = account.snapshots.iter().map(|s| s.position.index);
        (
            account.error.is_none(),
            account.highest_incarnation,
            ends.fold(0_u64, u64::saturating_add),
        )
    };
    match (one, other) {
        (Some(one), Some(other)) if knows(&other) > knows(&one) => Some(other),
        (one, other) => one.or(other),
    }
}

/// Of two readings of one directory the later one counts, in whatever order they come.
fn take_in(directories: &mut Vec<Directory>, read: Directory) {
    directories.retain(|known| !replaces(&read, known));
    if !directories.iter().any(|known| replaces(known, &read)) {
        directories.push(read);
    }
}

/// Whether a reading makes an earlier one of the same directory void. Two machines may have one name and one path, as containers do,
/// and one machine may mount several disks in turn in one place: whose a directory is tells readings apart. One that does not say
/// whose it is may be of anybody there, so it never costs us one that does: that would be a node's data given up unseen. The
/// other way round nothing is lost, since it cannot be used.
fn replaces(later: &Directory, earlier: &Directory) -> bool {
    let node = |d: &Directory| {
        let identity = d.identity.as_ref();
        identity.map(|i| (i.cluster_uuid.clone(), i.node_id))
    };
    let may_be_one = match (node(later), node(earlier)) {
        (Some(later), Some(earlier)) => later == earlier,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    later.is_at_place_of(earlier) && later.read_at >= earlier.read_at && may_be_one
}

/// The API URLs of everybody that the directories name.
pub(super) fn members_of(directories: &[Directory]) -> BTreeSet<String> {
    let mut urls = BTreeSet::new();
    for directory in directories {
        let of_identity = directory.identity.iter().flat_map(|i| i.members.values());
        let of_groups = directory
            .groups
            .iter()
            .flat_map(|g| &g.memberships)
            .flat_map(|m| m.nodes.values());
        let registered = directory
            .nodes
            .iter()
            .filter(|n| !n.retired)
            .map(|n| &n.info);
        urls.extend(
            of_identity
                .chain(of_groups)
                .chain(registered)
                .map(|info| info.api_url.clone())
                .filter(|url| !url.is_empty()),
        );
    }
    urls
}

async fn ask_nodes(
    collection: &Collection,
    args: &CollectArgs,
    global: &Global,
) -> Result<Vec<Live>, Failure> {
    let (given, caller) = given(
        args.endpoints.as_deref(),
        args.api_key_file.as_deref(),
        args.not_ours.clone(),
        global,
    )?;
    let mut urls = members_of(&collection.directories);
    urls.extend(given);
    let urls: Vec<String> = urls.into_iter().take(ASKED_MAX).collect();
    global.note(format!("ask {}", urls.join(", ")));
    ask(&urls, &caller).await
}

/// The store, when one is named.
async fn ask_store(
    collection: &Collection,
    args: &CollectArgs,
    global: &Global,
) -> Result<Option<StoreAccount>, Failure> {
    if args.no_store || !args.store.is_named(global) {
        return Ok(None);
    }
    let reader = args.store.reader(global).await?;
    let mut account = StoreAccount {
        url: reader.url().to_owned(),
        error: None,
        highest_incarnation: 0,
        clusters: Vec::new(),
        snapshots: Vec::new(),
    };
    let uuids: BTreeSet<String> = collection
        .directories
        .iter()
        .filter_map(|d| Some(d.identity.as_ref()?.cluster_uuid.clone()))
        .collect();
    let lives = collection
        .directories
        .iter()
        .filter_map(|d| Some(d.identity.as_ref()?.incarnation));
    let newest_life = lives.max().unwrap_or(u64::MAX);
    let groups: BTreeSet<GroupId> = collection
        .directories
        .iter()
        .flat_map(|d| d.groups.iter().map(|g| g.group.clone()))
        .collect();
    let told = tokio::time::timeout(
        STORE_WITHIN + STORE_WITHIN_EACH * u32::try_from(groups.len()).unwrap_or(u32::MAX),
        store_account(&reader, &uuids, &groups, newest_life, &mut account),
    )
    .await;
    let error = match told {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("no answer within {} s", STORE_WITHIN.as_secs())),
    };
    account.error = error.map(|e| e.chars().take(WHY_MAX).collect());
    Ok(Some(account))
}

async fn store_account(
    reader: &StoreReader,
    uuids: &BTreeSet<String>,
    groups: &BTreeSet<GroupId>,
    newest_life: u64,
    account: &mut StoreAccount,
) -> Result<(), String> {
    for claim in reader.clusters().await.map_err(|e| e.to_string())? {
        account.clusters.push(ClaimFacts {
            lineage: claim.lineage().to_owned(),
            created_by: claim.created_by.clone(),
            created_at: Time::from_us(claim.created_us),
            cluster: claim.cluster,
        });
    }
    for uuid in uuids {
        let highest = reader.highest_incarnation(uuid).await;
        account.highest_incarnation = account
            .highest_incarnation
            .max(highest.map_err(|e| e.to_string())?);
    }
    let undone = reader.undone_lives().await.map_err(|e| e.to_string())?;
    let undone: BTreeSet<u64> = undone
        .iter()
        .filter(|life| uuids.contains(&life.uuid))
        .map(|life| life.incarnation)
        .collect();
    for group in groups {
        let listing = reader.snapshots(group).await.map_err(|e| e.to_string())?;
        // What a life wrote that was undone, or that is newer than these directories, is no past of theirs, and would hide theirs.
        let of_past = |listed: &&Listed| {
            let life = listed.id.incarnation;
            life <= newest_life && !undone.contains(&life)
        };
        // Newest first; one that cannot be opened is not there for this purpose.
        for listed in listing.snapshots.iter().filter(of_past).take(TRIED_MAX) {
            let Ok(snapshot) = reader.open(group, &listed.id).await else {
                continue;
            };
            let manifest = snapshot.manifest();
            if !uuids.contains(&manifest.cluster.uuid) {
                // Of another cluster that shares the prefix.
                continue;
            }
            account.snapshots.push(StoreSnapshot {
                group: group.clone(),
                id: listed.id.to_string(),
                cluster: manifest.cluster.clone(),
                position: manifest.position,
            });
            break;
        }
    }
    Ok(())
}

fn show(collection: &Collection, args: &CollectArgs) -> Result<(), Failure> {
    let mut table = output::table([
        "NODE",
        "ID",
        "INCARNATION",
        "GROUP",
        "LAST",
        "COMMITTED",
        "APPLIED",
        "NOTE",
    ]);
    for directory in &collection.directories {
        let (id, incarnation) = directory
            .identity
            .as_ref()
            .map_or(("-".to_owned(), "-".to_owned()), |i| {
                (i.node_id.to_string(), i.incarnation.to_string())
            });
        let note = note_of(directory, collection);
        let mut row = |group: &str, last: &str, committed: &str, applied: &str| {
            let cells = [
                directory.name(),
                &id,
                &incarnation,
                group,
                last,
                committed,
                applied,
                &note,
            ]
            .map(|cell| confman_cli::escape::text(cell).into_owned());
            table.add_row(cells);
        };
        let text = |p: Option<Position>| {
            p.map_or_else(|| "-".to_owned(), |p| format!("{}.{}", p.term, p.index))
        };
        for group in &directory.groups {
            let name = group.group.to_string();
            row(
                &name,
                &text(group.last),
                &text(group.committed),
                &text(group.applied),
            );
        }
        if directory.groups.is_empty() {
            row("-", "-", "-", "-");
        }
    }
    output::print_table(&table)?;
    for live in &collection.live {
        let text = match (live.node(), &live.why) {
            (Some(node), _) => format!("{}: {} answers", live.url, node.name),
            (None, why) => format!("{}: {}", live.url, why.as_deref().unwrap_or("no answer")),
        };
        output::line(&text)?;
    }
    if let Some(store) = &collection.store {
        let text = match &store.error {
            Some(error) => format!("{}: {error}", store.url),
            None => format!(
                "{}: {} lives of the cluster, {} snapshots that can be opened",
                store.url,
                store.clusters.len(),
                store.snapshots.len()
            ),
        };
        output::line(&text)?;
    }
    output::line(&format!(
        "written to {}; next: drtool recover plan {}",
        args.out.display(),
        args.out.display()
    ))
}

fn note_of(directory: &Directory, collection: &Collection) -> String {
    if let Some(holder) = &directory.in_use {
        return format!("in use by {holder}");
    }
    let worst = directory.findings.iter().max_by_key(|f| f.severity);
    let mut notes: Vec<String> = worst.map(|f| f.code.clone()).into_iter().collect();
    let before = collection.read_before_at_place_of(directory);
    if !before.is_empty() {
        let before = before.join(", ");
        notes.push(format!(
            "read later than {before} there, without an identity"
        ));
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::kit;

    #[test]
    fn no_node_is_lost_where_machines_have_one_name_and_one_path() {
        let at_one_place = |id: u64, last: u64| Directory {
            path: "/var/lib/confman/data".to_owned(),
            host: "localhost".to_owned(),
            ..kit::node(id, 3, kit::at(2, last), kit::at(2, last))
        };
        let mut merged = kit::collection(vec![at_one_place(1, 7)]);
        merge(&mut merged, kit::collection(vec![at_one_place(2, 9)]));
        // Read again it is the same.
        merge(&mut merged, kit::collection(vec![at_one_place(1, 8)]));
        assert_eq!(merged.directories, [at_one_place(2, 9), at_one_place(1, 8)]);
        let mut foreign = at_one_place(1, 8);
        if let Some(identity) = &mut foreign.identity {
            identity.cluster_uuid = "another".to_owned();
        }
        merge(&mut merged, kit::collection(vec![foreign]));
        assert_eq!(merged.directories.len(), 3);
    }

    #[test]
    fn m15_a_reading_of_the_store_that_failed_hides_none_that_did_not() {
        let failed = StoreAccount {
            url: "s3://b/p".to_owned(),
            error: Some("no answer".to_owned()),
            highest_incarnation: 9,
            clusters: Vec::new(),
            snapshots: Vec::new(),
        };
        let read = StoreAccount {
            error: None,
            highest_incarnation: 1,
            ..failed.clone()
        };
        let later = StoreAccount {
            highest_incarnation: 2,
            ..read.clone()
        };
        let of = |one: Option<&StoreAccount>, other: Option<&StoreAccount>| {
            better(one.cloned(), other.cloned())
        };
        assert_eq!(of(Some(&failed), Some(&read)).as_ref(), Some(&read));
        assert_eq!(of(Some(&read), Some(&failed)).as_ref(), Some(&read));
        assert_eq!(of(Some(&read), Some(&later)).as_ref(), Some(&later));
        assert_eq!(of(Some(&later), Some(&read)).as_ref(), Some(&later));
        assert_eq!(of(None, Some(&failed)).as_ref(), Some(&failed));
        assert_eq!(of(Some(&failed), None).as_ref(), Some(&failed));
        assert_eq!(of(None, None), None);
    }

    fn reading(id: u64, at: i64, has_identity: bool) -> Directory {
        let mut read = kit::node(id, 3, kit::at(2, 7), kit::at(2, 7));
        "/mnt".clone_into(&mut read.path);
        "rescue".clone_into(&mut read.host);
        read.read_at = Time::from_us(at);
        read.identity = read.identity.filter(|_| has_identity);
        read
    }

    /// The same readings in every order, each in a collection of its own.
    fn merged_in_every_order(readings: &[Directory]) -> Vec<Vec<Directory>> {
        let mut orders: Vec<Vec<&Directory>> = vec![Vec::new()];
        for reading in readings {
            orders = orders
                .iter()
                .flat_map(|order| (0..=order.len()).map(move |at| (order, at)))
                .map(|(order, at)| {
                    let mut longer = order.clone();
                    longer.insert(at, reading);
                    longer
                })
                .collect();
        }
        let mut all = Vec::new();
        for order in orders {
            let mut merged = kit::collection(Vec::new());
            for reading in order {
                merge(&mut merged, kit::collection(vec![reading.clone()]));
            }
            merged.directories.sort_by_key(|d| d.read_at);
            all.push(merged.directories);
        }
        all
    }

    /// It was unreadable, or not there yet, when it was collected first.
    #[test]
    fn a_reading_that_does_not_say_whose_it_is_does_not_outlive_a_later_one() {
        for (first, second) in [(false, true), (false, false), (true, true)] {
            let (old, new) = (reading(1, 1, first), reading(1, 2, second));
            for directories in merged_in_every_order(&[old, new.clone()]) {
                assert_eq!(directories, std::slice::from_ref(&new), "{first} {second}");
            }
        }
    }

    /// Three disks are mounted one after the other in one place, or three containers have one name: the one that cannot be read
    /// says nothing against those that can.
    #[test]
    fn a_reading_that_does_not_say_whose_it_is_costs_nobody_elses() {
        let (old, unknown) = (reading(1, 1, true), reading(1, 2, false));
        for directories in merged_in_every_order(&[old.clone(), unknown.clone()]) {
            assert_eq!(directories, [old.clone(), unknown.clone()]);
        }
        let all = [
            reading(1, 1, true),
            reading(2, 2, true),
            reading(3, 3, false),
        ];
        for directories in merged_in_every_order(&all) {
            assert_eq!(directories, all);
        }
        let last = [all[2].clone(), reading(1, 4, true), reading(2, 5, true)];
        for directories in merged_in_every_order(&last) {
            assert_eq!(directories, last[1..]);
        }
        // It is told where it is shown, and where the plan is.
        let seen = kit::collection(all.to_vec());
        assert_eq!(note_of(&all[0], &seen), "");
        assert_eq!(
            note_of(&all[2], &seen),
            "read later than node1, node2 there, without an identity"
        );
        let notes = kit::planned(
            &kit::collection(vec![old, unknown]),
            &kit::wishes(&["node2", "node3"]),
        )
        .notes;
        assert!(
            notes
                .iter()
                .any(|n| n.contains("read later than node1 there, without an identity")),
            "{notes:?}"
        );
    }
}
