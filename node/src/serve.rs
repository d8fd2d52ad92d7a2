//! `confman serve`: one node, assembled from its settings, from the first look at the data directory
//! to the last flush.
//!
//! Order: settings (all errors at once, exit 2), the keys file and the TLS files; the data directory's lock; both listeners; an
//! identity ([`crate::formation`]); the groups; then the API answers. Until then `/health` says alive
//! and `/health/ready` says what is waited for.
//!
//! Exit codes: 0 after a stop that was asked for; 1 when the node stops by itself, with one error
//! that says what to do; 2 for wrong settings. A panic aborts the process. A node that is fenced, or
//! whose state differs, stays up and serves nothing ([`crate::standstill`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use confman_bootstrap::report;
use confman_config::Settings;
use confman_snapshot::model::GroupId;
use confman_store::datadir::IdentityState;
use confman_store::types::Member;
use confman_store::{
    DataDir, DataPaths, GroupStore, Identity, LogStore, OpenOptions, StateHandle, StateMachine,
};
use metrics_exporter_prometheus::PrometheusHandle;
use openraft::storage::RaftLogStorage as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::access::{Keyring, NoKeys};
use crate::api::forward::Forwarder;
use crate::api::forwarded;
use crate::api::limits::Limits;
use crate::fence::Fence;
use crate::formation::{Established, Formation};
use crate::front::Front;
use crate::group::{Group, GroupContext, Raft};
use crate::node::{Node, Parts};
use crate::peer::acquaintance::{Acquaintances, Own};
use crate::peer::client::Channels;
use crate::peer::desk::{Desk, Stage};
use crate::peer::network::Factory;
use crate::peer::{listener, proto};
use crate::store_door::StoreDoor;
use crate::tls::Tls;
use crate::tls::door::{self, Door, Listener};
use crate::traces::Traces;
use crate::traces::export::Export;
use crate::{
    manager, membership, meters, ordered, standstill, stop, store_probe, telemetry, tls, watch,
};

/// Arguments of `confman serve`; everything else is in the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeArgs {
    /// Stop when standard input is closed: for children of `confman dev`
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Runs a node until it is told to stop.
pub fn run(args: &ServeArgs) -> ExitCode {
    let settings = match Settings::from_env(std::env::vars_os()) {
        Ok(settings) => Arc::new(settings),
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(2);
        }
    };
    let traces = settings
        .otlp
        .as_ref()
        .map(|otlp| Traces::new(otlp, &settings.node_name).split());
    let (tracer, export) = traces.unzip();
    let (format, level) = (settings.log_format, &settings.log_level);
    if let Err(error) = telemetry::init_logs_and_traces(format, level, tracer) {
        eprintln!("confman: {error}");
        return ExitCode::from(2);
    }
    let store_tls = crate::tls::check_store(&settings, SystemTime::now());
    let (keyring, tls) = match (keyring(&settings), crate::tls::load(&settings), store_tls) {
        (Ok(keyring), Ok(tls), Ok(())) => (keyring, tls),
        (keyring, tls, store_tls) => {
            if let Err(error) = keyring {
                eprintln!("confman: {error}");
            }
            for errors in tls.err().into_iter().chain(store_tls.err()) {
                eprintln!("confman: {errors}");
            }
            return ExitCode::from(2);
        }
    };
    telemetry::abort_on_panic();
    for notice in settings.notices() {
        tracing::warn!("{notice}");
    }
    // Two providers in one binary panic: this is the only one. A second install is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        // The first metrics are those of the traces.
        let prometheus = telemetry::init_metrics();
        let exporting = export.map(Export::start).transpose()?;
        let settings = Arc::clone(&settings);
        let ended = serve(settings, keyring, tls, prometheus, args.exit_with_parent).await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        ended
    });
    // Blocking work that is still going on (an upload) does not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => {
            tracing::info!(node = %settings.node_name, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let hint = remedy(&error, &settings.data_dir);
            tracing::error!(node = %settings.node_name, "stopped by itself: {error:#}{hint}");
            ExitCode::FAILURE
        }
    }
}

/// What to do when it is the disk that has no room. Raft hands its storage's errors on as text, so text it is that tells.
fn remedy(error: &anyhow::Error, data_dir: &Path) -> String {
    use rustix::io::Errno;
    let said = format!("{error:#}");
    let full = [Errno::NOSPC, Errno::DQUOT]
        .into_iter()
        .any(|errno| said.contains(&format!("(os error {})", errno.raw_os_error())));
    if !full {
        return String::new();
    }
    format!(
        "\nhint: the disk that holds {} is full: give it room, then start this node again (`drtool runbook disk-full`); nothing that was acknowledged is lost",
        data_dir.display()
    )
}

fn keyring(settings: &Settings) -> Result<Arc<dyn Keyring>, crate::auth::KeysError> {
    Ok(match settings.api_keys_file.as_deref() {
        Some(path) => Arc::new(crate::auth::Keys::load(path)?),
        None => Arc::new(NoKeys),
    })
}

async fn serve(
    settings: Arc<Settings>,
    keyring: Arc<dyn Keyring>,
    tls: Option<Arc<Tls>>,
    prometheus: PrometheusHandle,
    exit_with_parent: bool,
) -> anyhow::Result<()> {
    let stop_asked = stop::asked(exit_with_parent)?;
    let mut data = DataDir::open(&settings.data_dir)?;
    let api = listen(settings.api_listen, "CONFMAN_API_LISTEN").await?;
    let peers = listen(settings.peer_listen, "CONFMAN_PEER_LISTEN").await?;
    tracing::info!(
        node = %settings.node_name, api = %settings.api_listen, peers = %settings.peer_listen,
        data = %settings.data_dir.display(), version = confman_cli::VERSION, "starting"
    );
    if let Some(tls) = &tls {
        tls::watch::tell(&tls.current().portrait, "TLS is spoken");
    }
    let own = proto::Node {
        id: 0,
        name: settings.node_name.clone(),
        api_url: settings.api_advertise.clone(),
        peer_addr: settings.peer_advertise.clone(),
        // None is 0, which is no process.
        boot: rand::random::<u64>().max(1),
    };
    let channels = Channels::new(settings.cluster_token.as_ref(), tls.clone())?;
    let acquaintances = Acquaintances::new(own.boot, channels.clone());
    let (desk, births) = Desk::new(
        own,
        Arc::clone(&acquaintances),
        settings.cluster_token.as_ref(),
    );
    let store = Arc::new(StoreDoor::new(&settings));
    let closing = CancellationToken::new();
    let front = Front::new(&settings.node_name, prometheus.clone());
    metrics::gauge!("confman_snapshot_interval_seconds")
        .set(settings.snapshot.time_threshold.as_secs_f64());
    metrics::gauge!("confman_snapshot_log_threshold_entries")
        .set(settings.snapshot.log_threshold as f64);
    let limits = Limits::new(settings.body_max_bytes, settings.write_timeout);
    let api = tokio::spawn(crate::api::serve::serve(
        api,
        front.router(),
        limits.clone(),
        Door::new(Listener::Api, tls.clone()),
        closing.clone().cancelled_owned(),
    ));
    let peer_door = Arc::new(Door::new(Listener::Peers, tls.clone()));
    let arrivals = door::arrivals(peers, peer_door);
    let under_way = TaskTracker::new();
    let admission = listener::admission_of(Arc::clone(&desk));
    let forwarded = forwarded::door(front.router(), admission, &under_way);
    let peers = tokio::spawn(listener::serve(
        arrivals,
        Arc::clone(&desk),
        forwarded,
        closing.clone(),
    ));
    if let Some(tls) = &tls {
        // Until the end: a node that waits to be formed, or is fenced, answers too.
        tokio::spawn(tls::watch::run(Arc::clone(tls), closing.clone()));
    }

    let formation = Formation {
        settings: &settings,
        channels: &channels,
        desk: &desk,
        store: &store,
        front: &front,
        data: &mut data,
        births,
        nonce: uuid::Uuid::new_v4().to_string(),
        failed: None,
        warned: None,
    };
    tokio::pin!(stop_asked);
    let established = tokio::select! {
        established = formation.establish() => established?,
        why = &mut stop_asked => {
            tracing::info!(why, "asked to stop before the node had an identity");
            closing.cancel();
            return Ok(());
        }
    };
    let (identity, restored) = match established {
        Established::Run { identity, restored } => (identity, restored),
        Established::Fenced { cluster, reason } => {
            tracing::error!(cluster = %cluster.uuid, incarnation = cluster.incarnation, "this node is fenced and serves nothing: {reason}");
            front.fenced(&reason);
            let why = stop_asked.await;
            tracing::info!(why, "asked to stop");
            closing.cancel();
            return Ok(());
        }
    };

    front.owned_by(&identity);
    for id in standstill::group_ids(&identity) {
        meters::begin_group(&id);
    }
    if let Some(finding) = standstill::finding(data.paths(), &identity)? {
        standstill::stay_diverged(&desk, &front, &finding);
        let why = standstill::stay(&data, &identity, &desk, &front, stop_asked).await?;
        tracing::info!(why, "asked to stop");
        closing.cancel();
        return Ok(());
    }
    let (retired, told_retired) = tokio::sync::watch::channel(None);
    let (newer, told_newer) = tokio::sync::watch::channel(None);
    let outfit = Outfit {
        settings: Arc::clone(&settings),
        channels,
        acquaintances: Arc::clone(&acquaintances),
        store,
        addresses: Arc::default(),
        fence: Fence::new(
            settings
                .snapshot
                .enabled
                .then_some(settings.store_fence_interval),
        ),
        retired,
        newer,
        prometheus,
    };
    let own = desk.own_in(&desk.stage());
    let node = tokio::select! {
        node = assemble(outfit, &data, own, identity, restored) => node?,
        why = &mut stop_asked => {
            tracing::info!(why, "asked to stop before the node served");
            closing.cancel();
            return Ok(());
        }
    };
    desk.enter(Stage::Member(Arc::clone(&node)));
    let backend: Arc<dyn crate::api::backend::Backend> = Arc::clone(&node) as _;
    let forwarder = Forwarder::new(
        tls,
        settings.cluster_token.as_ref(),
        listener::life_of(&node),
    );
    front.open(crate::api::router(
        backend,
        keyring,
        limits,
        Arc::new(rand::random),
        forwarder,
    ));
    tracing::info!(node = %settings.node_name, node_id = node.id(), groups = node.groups().count(), "serving");

    let background = CancellationToken::new();
    let executors = [
        tokio::spawn(membership::run(Arc::clone(&node), background.clone())),
        tokio::spawn(manager::run(Arc::clone(&node), background.clone())),
        tokio::spawn(ordered::finish(Arc::clone(&node), background.clone())),
        tokio::spawn(store_probe::at_start(Arc::clone(&node), background.clone())),
        tokio::spawn(watch::restores(Arc::clone(&node), background.clone())),
        tokio::spawn(watch::leaders(Arc::clone(&node), background.clone())),
        tokio::spawn(crate::clock::listen(Arc::clone(&node), background.clone())),
        tokio::spawn(crate::alone::tell(Arc::clone(&node), background.clone())),
        tokio::spawn(crate::remembered::keep(
            Arc::clone(&node),
            background.clone(),
        )),
    ];
    let ended = tokio::select! {
        why = &mut stop_asked => { tracing::info!(why, "asked to stop"); Ok(End::Asked) }
        failure = watch::failure(&node) => match standstill::finding(data.paths(), node.identity()) {
            Ok(Some(finding)) => Ok(End::Diverged(finding)),
            _ => Err(failure),
        },
        fenced = crate::fence::watch(&node) => Ok(End::Fenced(fenced)),
        fenced = watch::newer(told_newer) => Ok(End::Fenced(fenced)),
        retired = watch::retired(told_retired) => Err(retired),
        rejected = watch::rejected(acquaintances.rejected()) => Err(rejected),
    };
    background.cancel();
    match &ended {
        Err(error) => front.say(error.to_string()),
        // Leadership goes first, while peers and clients are still served.
        Ok(End::Asked) => stop::hand_over(&node).await,
        Ok(End::Fenced(reason)) => {
            standstill::fence(&data, &node, &desk, &front, reason).await?;
            tracing::info!(why = stop_asked.await, "asked to stop");
        }
        Ok(End::Diverged(finding)) => {
            standstill::diverge(&node, &desk, &front, finding).await;
            let why = standstill::stay(&data, node.identity(), &desk, &front, stop_asked).await?;
            tracing::info!(why, "asked to stop");
        }
    }
    closing.cancel();
    under_way.close();
    // What clients have asked, here or by way of another node, is answered.
    let answered = async { tokio::join!(api, under_way.wait()) };
    let _ = tokio::time::timeout(Duration::from_secs(3), answered).await;
    stop::close(&node).await;
    peers.abort();
    for executor in executors {
        executor.abort();
    }
    ended.map(|_| ())
}

/// How a node came to serve no more, when nothing failed that a restart may mend.
enum End {
    /// It was asked to.
    Asked,
    /// It met a newer life of its cluster.
    Fenced(String),
    /// Its state differs from the recorded one.
    Diverged(confman_store::Diverged),
}

async fn listen(addr: std::net::SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|e| {
        anyhow::anyhow!(
            "listen on {addr}: {e}\nhint: another process may have that port; see {setting}"
        )
    })
}

/// What the node is assembled from, beside its data.
struct Outfit {
    settings: Arc<Settings>,
    channels: Channels,
    acquaintances: Arc<Acquaintances>,
    store: Arc<StoreDoor>,
    addresses: Arc<ArcSwap<BTreeMap<u64, String>>>,
    fence: Arc<Fence>,
    /// Where the groups report that a peer calls this node's id retired.
    retired: tokio::sync::watch::Sender<Option<String>>,
    /// Where the groups and the peer service report a newer life of the cluster.
    newer: tokio::sync::watch::Sender<Option<String>>,
    prometheus: PrometheusHandle,
}

/// Opens every group and makes the node of them. That this node has started is written down when all
/// of its groups are on disk and before any of them can vote.
async fn assemble(
    outfit: Outfit,
    data: &DataDir,
    own: Option<Own>,
    mut identity: Identity,
    mut restored: BTreeMap<GroupId, report::RestoreReport>,
) -> anyhow::Result<Arc<Node>> {
    let paths = data.paths().clone();
    let mut opened = Vec::new();
    for id in standstill::group_ids(&identity) {
        if !restored.contains_key(&id)
            && let Some(kept) = report::read(&paths.group(&id))?
        {
            restored.insert(id.clone(), kept);
        }
        let parts = open_store(&outfit.settings, &identity, &paths, &id)
            .await
            .with_context(|| format!("open group {id}"))?;
        opened.push((id, parts));
    }
    let own = own.context("a node without an id")?;
    let pending = data
        .read_incarnation()?
        .filter(|p| p.incarnation == identity.incarnation && p.lineage == identity.lineage);
    crate::remembered::recall(&paths, &identity, &outfit.acquaintances);
    crate::alone::prove(
        &outfit.settings,
        &outfit.acquaintances,
        own,
        &identity,
        pending.as_ref(),
        &opened,
    )
    .await?;
    if identity.state() != IdentityState::Initialized {
        identity.set_state(IdentityState::Initialized);
        data.write_identity(&identity)?;
    }
    let mut groups = BTreeMap::new();
    for (id, parts) in opened {
        let group = run_group(&outfit, &identity, &id, parts)
            .await
            .with_context(|| format!("run group {id}"))?;
        groups.insert(id, group);
    }
    let Outfit {
        settings,
        channels,
        store,
        addresses,
        fence,
        newer,
        retired,
        prometheus,
        ..
    } = outfit;
    Ok(Node::new(Parts {
        settings,
        identity,
        paths,
        groups,
        channels,
        store,
        restored,
        addresses,
        fence,
        prometheus,
        pending,
        newer,
        told_retired: retired,
    })?)
}

/// Log, machine and reads of one group.
pub(crate) type OpenedStore = (LogStore, StateMachine, StateHandle);

async fn open_store(
    settings: &Settings,
    identity: &Identity,
    paths: &DataPaths,
    id: &GroupId,
) -> anyhow::Result<OpenedStore> {
    let options = OpenOptions {
        state_cache_bytes: usize::try_from(settings.state_cache_bytes)?,
        log_cache_bytes: usize::try_from(settings.log_cache_bytes)?,
        ..OpenOptions::new(identity.cluster())
    };
    let group_paths = paths.group(id);
    Ok(tokio::task::spawn_blocking(move || GroupStore::open(group_paths, options)).await??)
}

async fn run_group(
    outfit: &Outfit,
    identity: &Identity,
    id: &GroupId,
    (mut log, machine, state): OpenedStore,
) -> anyhow::Result<Arc<Group>> {
    let settings = &outfit.settings;
    let context = GroupContext {
        node_id: identity.node_id,
        cluster_uuid: identity.cluster_uuid.clone(),
        incarnation: identity.incarnation,
        lineage: identity.lineage.clone(),
        channels: outfit.channels.clone(),
        acquaintances: Arc::clone(&outfit.acquaintances),
        addresses: Arc::clone(&outfit.addresses),
        fence: Arc::clone(&outfit.fence),
        transfers: Arc::default(),
        leader_silence_max: settings.election_max,
        heartbeat: settings.heartbeat,
        retired: outfit.retired.clone(),
        newer: outfit.newer.clone(),
        write_timeout: settings.write_timeout,
        read_timeout: settings.read_timeout,
    };
    let factory = Factory {
        group: id.clone(),
        context: context.clone(),
        control: machine.control(),
    };
    let control = machine.control();
    let config = Arc::new(raft_config(settings, id).validate()?);
    let log_end = log.get_log_state().await?.last_log_id.map(|l| l.index);
    let raft = Raft::new(identity.node_id, config, factory, log, machine).await?;
    initialize(&raft, identity).await?;
    let group = Group::new(id.clone(), raft, state, control, context);
    group.begins_behind(log_end);
    Ok(group)
}

fn raft_config(settings: &Settings, group: &GroupId) -> openraft::Config {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: group.to_string(),
        heartbeat_interval: millis(settings.heartbeat),
        // openraft waits for the leader's lease (its maximum) and then for a random timeout: half and
        // half make the silence after which a follower stands what the settings say, at most.
        election_timeout_min: millis(settings.election_min / 2),
        election_timeout_max: millis(settings.election_max / 2),
        enable_pre_vote: Some(true),
        // A restarted leader does not go on as leader on the word of its disk.
        enable_leader_restore: Some(false),
        // A leader without quorum stops calling itself one.
        quorum_loss_probe_interval: Some(millis(settings.election_max)),
        // The manager decides about snapshots and purging.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        install_snapshot_timeout: 3_600_000,
        allow_log_reversion: Some(false),
        max_payload_entries: 512,
        ..Default::default()
    }
}

/// At the birth of a cluster every member writes the same first entry; anywhere else this does
/// nothing: a node that joined later waits for the leader.
async fn initialize(raft: &Raft, identity: &Identity) -> anyhow::Result<()> {
    let born = identity.members.iter().any(|m| m.id == identity.node_id);
    if !born || raft.is_initialized().await? {
        return Ok(());
    }
    let members: BTreeMap<u64, Member> = identity
        .members
        .iter()
        .filter_map(|m| Some((m.id, Member::from(m.info.as_ref()?))))
        .collect();
    match raft.initialize(members).await {
        Ok(()) => Ok(()),
        // A leader's first append came in between.
        Err(openraft::errors::RaftError::APIError(
            openraft::errors::InitializeError::NotAllowed(_),
        )) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
