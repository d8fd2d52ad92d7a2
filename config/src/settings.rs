//! A node's settings, typed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::catalog as declared;
use crate::effective::EffectiveSetting;
use crate::errors::SettingsErrors;
use crate::machine::{Machine, ThisMachine};
use crate::reader::Reader;
use crate::rules;
use crate::tls::{self, ClientTlsSettings, TlsSettings};

/// Everything that starts a node. Made only by [`Settings::from_env`], so it is right as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's name for the node.
    pub node_name: String,
    /// Everything the node keeps.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub api_listen: SocketAddr,
    /// The URL clients are sent to; without a trailing slash.
    pub api_advertise: String,
    /// Where other nodes connect.
    pub peer_listen: SocketAddr,
    /// `host:port` that other nodes are told.
    pub peer_advertise: String,
    /// Those that form the cluster, this node among them; empty for a cluster of one.
    pub peers: Vec<Peer>,
    /// The API keys' hashes and roles; `None` means no keys, and then the API listens on loopback.
    pub api_keys_file: Option<PathBuf>,
    /// What nodes show each other; `None` only when peers connect over loopback.
    pub cluster_token: Option<SecretString>,
    /// The files with which the API speaks https and peers show each other who they are; `None` for clear text.
    pub tls: Option<TlsSettings>,
    /// How many `config/` groups there are; counts at the cluster's birth only.
    pub shards: u32,
    /// When and how groups are snapshotted.
    pub snapshot: SnapshotSettings,
    /// Where objects are kept; `{data}` in it stands for the data directory.
    pub object_store_url: String,
    /// Whose certificate an https store may show, and what it is shown.
    pub store_tls: ClientTlsSettings,
    /// How often a leader tells the others that it lives.
    pub heartbeat: Duration,
    /// The shortest silence before a follower stands for election.
    pub election_min: Duration,
    /// The longest such silence.
    pub election_max: Duration,
    /// How often a leader asks the store whether its cluster has a newer life.
    pub store_fence_interval: Duration,
    /// How long a write waits for its commit.
    pub write_timeout: Duration,
    /// How long a read waits for a leader or a version.
    pub read_timeout: Duration,
    /// The longest value, and so the longest request body.
    pub body_max_bytes: u64,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: directives of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// Where traces go; `None` means that none are made.
    pub otlp: Option<OtlpSettings>,
    /// Page cache of each group's database.
    pub state_cache_bytes: u64,
    /// Newest entries of each group's log that are kept in memory.
    pub log_cache_bytes: u64,
    effective: Vec<EffectiveSetting>,
}

/// When and how groups are snapshotted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Whether groups are snapshotted by themselves.
    pub enabled: bool,
    /// Entries since the last snapshot that make the next one due.
    pub log_threshold: u64,
    /// Bytes since the last snapshot that make the next one due.
    pub bytes_threshold: u64,
    /// Time since the last snapshot that makes the next one due, if anything changed.
    pub time_threshold: Duration,
    /// Free space on a member's disk, in percent of it, below which a snapshot is due as soon as it lets log go; 0 for never.
    pub disk_free_percent: u64,
    /// How many a node builds at once; at least 1.
    pub max_concurrent: usize,
    /// The codec of new snapshots.
    pub compression: Compression,
    /// Verified generations that are always kept; at least 1.
    pub retention_count: usize,
    /// Entries kept behind the snapshot.
    pub log_margin: u64,
    /// Time between marking an old snapshot and deleting it.
    pub delete_grace: Duration,
}

/// Where traces go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// The URL of the collector; without a trailing slash.
    pub endpoint: String,
    /// The part of the requests that is traced where the client does not decide it: from 0 to 1.
    pub sample_ratio: f64,
}

/// The codec of new snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Stored as it is.
    None,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A member of the cluster to be formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node name.
    pub name: String,
    /// Its `host:port` for other nodes.
    pub addr: String,
}

impl Settings {
    /// Reads and checks a node's settings.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_env(
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsErrors> {
        Self::resolve(env, &ThisMachine)
    }

    /// [`Settings::from_env`] for a machine given by argument.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn resolve(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        machine: &dyn Machine,
    ) -> Result<Self, SettingsErrors> {
        let mut reader = Reader::new(env, machine);
        let settings = Self::read(&mut reader);
        let effective = reader.finish()?;
        // A setting that is missing has left an error, so that `finish` has returned it.
        settings
            .map(|settings| Self {
                effective,
                ..settings
            })
            .ok_or(SettingsErrors(Vec::new()))
    }

    /// Reads every setting before it gives up on any: all errors are wanted.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let tls = tls::Given::read(reader);
        let places = Places::read(reader, tls.is_wanted());
        tls.check(
            reader,
            places.api_advertise.as_deref(),
            places.peer_listen,
            &places.peers,
        );
        let api_keys_file = reader.read(&declared::API_KEYS_FILE);
        let cluster_token = reader.read(&declared::CLUSTER_TOKEN);
        let shards = reader
            .read(&declared::SHARDS)
            .and_then(|shards| u32::try_from(shards).ok());
        let object_store_url = reader.read(&declared::OBJECT_STORE_URL);
        let store_tls = ClientTlsSettings::read_for_store(reader);
        store_tls.check_store(reader, object_store_url.as_deref());
        let snapshot = SnapshotSettings::read(reader);
        let heartbeat = reader.read(&declared::HEARTBEAT_MS);
        let election_min = reader.read(&declared::ELECTION_TIMEOUT_MIN_MS);
        let election_max = reader.read(&declared::ELECTION_TIMEOUT_MAX_MS);
        let store_fence_interval = reader.read(&declared::STORE_FENCE_INTERVAL_MS);
        let write_timeout = reader.read(&declared::WRITE_TIMEOUT_MS);
        let read_timeout = reader.read(&declared::READ_TIMEOUT_MS);
        let body_max_bytes = reader.read(&declared::VALUE_MAX_BYTES);
        let state_cache_bytes = reader.read(&declared::STATE_CACHE_BYTES);
        let log_cache_bytes = reader.read(&declared::LOG_CACHE_BYTES);
        let log_format = reader.read(&declared::LOG_FORMAT);
        let log_level = reader.read(&declared::LOG);
        let otlp_endpoint = reader.read(&declared::OTLP_ENDPOINT);
        let sample_ratio = reader.read(&declared::OTLP_SAMPLE_RATIO);

        rules::timing(reader, heartbeat, election_min, election_max);
        let keys = reader.is_given(&declared::API_KEYS_FILE);
        let token = reader.is_given(&declared::CLUSTER_TOKEN);
        rules::listeners(reader, places.api_listen, keys, places.peer_listen, token);

        Some(Self {
            node_name: places.node_name?,
            data_dir: places.data_dir?,
            api_listen: places.api_listen?,
            api_advertise: places.api_advertise?,
            peer_listen: places.peer_listen?,
            peer_advertise: places.peer_advertise?,
            peers: places.peers,
            api_keys_file,
            cluster_token,
            tls: tls.settings(),
            shards: shards?,
            snapshot: snapshot?,
            object_store_url: object_store_url?,
            store_tls,
            heartbeat: heartbeat?,
            election_min: election_min?,
            election_max: election_max?,
            store_fence_interval: store_fence_interval?,
            write_timeout: write_timeout?,
            read_timeout: read_timeout?,
            body_max_bytes: body_max_bytes?,
            log_format: log_format?,
            log_level: log_level?,
            otlp: match (otlp_endpoint, sample_ratio?) {
                (Some(endpoint), sample_ratio) => Some(OtlpSettings {
                    endpoint,
                    sample_ratio,
                }),
                (None, _) => None,
            },
            state_cache_bytes: state_cache_bytes?,
            log_cache_bytes: log_cache_bytes?,
            effective: Vec::new(),
        })
    }

    /// Every setting as it is in force, in the order of declaration; secrets are not shown.
    #[must_use]
    pub fn effective(&self) -> Vec<EffectiveSetting> {
        let place = |setting: &EffectiveSetting| {
            declared::NODE
                .iter()
                .position(|declared| declared.name() == setting.name)
        };
        let mut effective = self.effective.clone();
        effective.sort_by_key(place);
        effective
    }

    /// What is allowed and yet worth a line at start.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        rules::notices(self)
    }
}

/// The settings that say where the node is, who the others are, and where its files are.
struct Places {
    node_name: Option<String>,
    data_dir: Option<PathBuf>,
    api_listen: Option<SocketAddr>,
    api_advertise: Option<String>,
    peer_listen: Option<SocketAddr>,
    peer_advertise: Option<String>,
    peers: Vec<Peer>,
}

impl Places {
    fn read(reader: &mut Reader<'_>, https: bool) -> Self {
        let host_name = reader
            .machine()
            .host_name()
            .map(|name| (name, "the host name"));
        let node_name = reader.read_or(&declared::NODE_NAME, host_name);
        rules::has_name(reader, node_name.as_deref());
        let data_dir = reader.read(&declared::DATA_DIR);
        let peers = reader.read(&declared::PEERS).unwrap_or_default();

        let api_listen = reader.read(&declared::API_LISTEN);
        let derived =
            rules::advertised(reader, &declared::API_ADVERTISE, api_listen).map(|listen| {
                let scheme = if https { "https" } else { "http" };
                (format!("{scheme}://{listen}"), declared::API_LISTEN.name)
            });
        let api_advertise = reader.read_or(&declared::API_ADVERTISE, derived);

        let peer_listen = reader.read(&declared::PEER_LISTEN);
        let own = peers
            .iter()
            .find(|peer| Some(&peer.name) == node_name.as_ref());
        let derived = match own {
            Some(peer) => Some((peer.addr.clone(), declared::PEERS.name)),
            None => rules::advertised(reader, &declared::PEER_ADVERTISE, peer_listen)
                .map(|listen| (listen.to_string(), declared::PEER_LISTEN.name)),
        };
        let peer_advertise = reader.read_or(&declared::PEER_ADVERTISE, derived);

        rules::membership(reader, node_name.as_deref(), &peers);
        Self {
            node_name,
            data_dir,
            api_listen,
            api_advertise,
            peer_listen,
            peer_advertise,
            peers,
        }
    }
}

impl SnapshotSettings {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let enabled = reader.read(&declared::SNAPSHOT_ENABLED);
        let log_threshold = reader.read(&declared::SNAPSHOT_LOG_THRESHOLD);
        let bytes_threshold = reader.read(&declared::SNAPSHOT_BYTES_THRESHOLD);
        let time_threshold = reader.read(&declared::SNAPSHOT_TIME_THRESHOLD_SECS);
        let disk_free_percent = reader.read(&declared::SNAPSHOT_DISK_FREE_PERCENT);
        let max_concurrent = reader.read(&declared::SNAPSHOT_MAX_CONCURRENT);
        let compression = reader.read(&declared::SNAPSHOT_COMPRESSION);
        let retention_count = reader.read(&declared::SNAPSHOT_RETENTION_COUNT);
        let log_margin = reader.read(&declared::SNAPSHOT_LOG_MARGIN);
        let delete_grace = reader.read(&declared::SNAPSHOT_DELETE_GRACE_SECS);
        Some(Self {
            enabled: enabled?,
            log_threshold: log_threshold?,
            bytes_threshold: bytes_threshold?,
            time_threshold: time_threshold?,
            disk_free_percent: disk_free_percent?,
            max_concurrent: usize::try_from(max_concurrent?).ok()?,
            compression: compression?,
            retention_count: usize::try_from(retention_count?).ok()?,
            log_margin: log_margin?,
            delete_grace: delete_grace?,
        })
    }
}
