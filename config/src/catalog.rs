//! The declarations: one per setting, and nothing about a setting is written anywhere else.
//!
//! To add one: declare it here, read it in `settings.rs` (a test finds a setting that is declared and
//! not read), and run `UPDATE_README=1 cargo test -p confman-config readme` for the table in the README.

use crate::kinds::{
    ApiUrl, Choice, CollectorUrl, Endpoints, FilePath, Flag, HostPort, Kind, Listen, LogFilter,
    Millis, Name, Number, Peers, Ratio, Seconds, Secret, StoreUrl,
};
use crate::settings::{Compression, LogFormat};
use crate::tls::ClientCertificates;

/// What holds when a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text is read as if it had been given.
    Text(&'static str),
    /// It follows from something else: said in words, in the README's Markdown.
    Derived(&'static str),
    /// There is none: what that means, in words.
    Nothing(&'static str),
}

/// A declared setting.
pub struct Setting<K: 'static> {
    /// The environment variable.
    pub name: &'static str,
    /// What holds when it is not set.
    pub fallback: Fallback,
    /// Never shown, and also read from the file that `{name}_FILE` names.
    pub secret: bool,
    /// What its value must be.
    pub kind: K,
    /// What it does, in one line of Markdown.
    pub doc: &'static str,
}

/// A declared setting whatever its kind.
pub trait Declared: Sync {
    /// The environment variable.
    fn name(&self) -> &'static str;
    /// What holds when it is not set.
    fn fallback(&self) -> Fallback;
    /// Whether it is a secret.
    fn secret(&self) -> bool;
    /// What its value must be, in words.
    fn expected(&self) -> String;
    /// What it does.
    fn doc(&self) -> &'static str;
    /// Whether the text is a value of its kind.
    fn accepts(&self, text: &str) -> bool;
}

impl<K: Kind> Declared for Setting<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fallback(&self) -> Fallback {
        self.fallback
    }

    fn secret(&self) -> bool {
        self.secret
    }

    fn expected(&self) -> String {
        self.kind.expected()
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn accepts(&self, text: &str) -> bool {
        self.kind.parse(text).is_ok()
    }
}

/// Declares settings, and the list of them, so that none can be left out of the list.
macro_rules! settings {
    ($(#[$list_doc:meta])* $list:ident: $($item:ident = $name:literal ($kind:ty) {
        $fallback:expr, $kind_value:expr, $secret:literal, $doc:literal
    })*) => {
        $(
            #[doc = $doc]
            pub static $item: Setting<$kind> = Setting {
                name: $name,
                fallback: $fallback,
                secret: $secret,
                kind: $kind_value,
                doc: $doc,
            };
        )*
        $(#[$list_doc])*
        pub static $list: &[&dyn Declared] = &[$(&$item),*];
    };
}

use Fallback::{Derived, Nothing, Text};

const fn number(min: u64, max: u64, unit: &'static str) -> Number {
    Number { min, max, unit }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;
const DAY_SECS: u64 = 24 * 60 * 60;

settings! {
    /// What starts a node, in the order in which it is documented.
    NODE:

    NODE_NAME = "CONFMAN_NODE_NAME" (Name) {
        Derived("host name"), Name, false,
        "The operator's name for the node; one of those in `CONFMAN_PEERS`"
    }
    DATA_DIR = "CONFMAN_DATA_DIR" (FilePath) {
        Text("confman-data"), FilePath, false,
        "Everything the node keeps; no two nodes share one"
    }
    API_LISTEN = "CONFMAN_API_LISTEN" (Listen) {
        Text("127.0.0.1:6100"), Listen, false,
        "Where clients connect; `/health` and `/metrics` too"
    }
    API_ADVERTISE = "CONFMAN_API_ADVERTISE" (ApiUrl) {
        Derived("`CONFMAN_API_LISTEN` as URL"), ApiUrl, false,
        "The URL that clients are sent to"
    }
    PEER_LISTEN = "CONFMAN_PEER_LISTEN" (Listen) {
        Text("127.0.0.1:6101"), Listen, false,
        "Where other nodes connect"
    }
    PEER_ADVERTISE = "CONFMAN_PEER_ADVERTISE" (HostPort) {
        Derived("this node's in `CONFMAN_PEERS`, else `CONFMAN_PEER_LISTEN`"), HostPort, false,
        "The address that other nodes are told"
    }
    PEERS = "CONFMAN_PEERS" (Peers) {
        Nothing("a cluster of one"), Peers, false,
        "Those that form the cluster, this node too, and where an empty node looks for a living one"
    }
    SHARDS = "CONFMAN_SHARDS" (Number) {
        Text("1"), number(1, 256, ""), false,
        "How many Raft groups share the configuration; read at the cluster's birth only"
    }
    API_KEYS_FILE = "CONFMAN_API_KEYS_FILE" (FilePath) {
        Nothing("the API listens on loopback only, without keys"), FilePath, false,
        "The API keys' hashes and roles, made by `confman key create`"
    }
    CLUSTER_TOKEN = "CONFMAN_CLUSTER_TOKEN" (Secret) {
        Nothing("peers on loopback only"), Secret, true,
        "What nodes show each other; the same on all of them"
    }
    TLS_CERT_FILE = "CONFMAN_TLS_CERT_FILE" (FilePath) {
        Nothing("API and peers speak in the clear"), FilePath, false,
        "The node's certificate with its intermediates, PEM: the API speaks https, and peers show it to each other"
    }
    TLS_KEY_FILE = "CONFMAN_TLS_KEY_FILE" (FilePath) {
        Nothing("as above"), FilePath, false,
        "The private key of that certificate, PEM"
    }
    TLS_CA_FILE = "CONFMAN_TLS_CA_FILE" (FilePath) {
        Nothing("for a cluster of one, whose peers connect over loopback only"), FilePath, false,
        "The authorities whose certificates peers must show, PEM; during a change of the authority the old and the new one"
    }
    TLS_API_CLIENT_CERTS = "CONFMAN_TLS_API_CLIENT_CERTS" (Choice<ClientCertificates>) {
        Text("none"),
        Choice(&[
            ("none", ClientCertificates::None),
            ("required", ClientCertificates::Required),
        ]),
        false,
        "Whether clients of the API must show a certificate of those authorities too, beside their key"
    }
    OBJECT_STORE_URL = "CONFMAN_OBJECT_STORE_URL" (StoreUrl) {
        Text("file://{data}/objects"), StoreUrl, false,
        "Where snapshots are kept; `{data}` is the data directory. Credentials: `AWS_*`, `GOOGLE_*`, `AZURE_*`"
    }
    TLS_STORE_CA_FILE = "CONFMAN_TLS_STORE_CA_FILE" (FilePath) {
        Nothing("those that the system trusts"), FilePath, false,
        "Authorities that the certificate of an https store may be of, beside the system's, PEM"
    }
    TLS_STORE_CERT_FILE = "CONFMAN_TLS_STORE_CERT_FILE" (FilePath) {
        Nothing("no certificate is shown"), FilePath, false,
        "The certificate that is shown to a store which asks for one, with its intermediates, PEM"
    }
    TLS_STORE_KEY_FILE = "CONFMAN_TLS_STORE_KEY_FILE" (FilePath) {
        Nothing("as above"), FilePath, false,
        "The private key of that certificate, PEM"
    }

    SNAPSHOT_ENABLED = "CONFMAN_SNAPSHOT_ENABLED" (Flag) {
        Text("true"), Flag, false,
        "Whether snapshots are made; with `false` no object store is used at all, and the log is never purged"
    }
    SNAPSHOT_LOG_THRESHOLD = "CONFMAN_SNAPSHOT_LOG_THRESHOLD" (Number) {
        Text("10000"), number(1, 1_000_000_000, "entries"), false,
        "Log entries since the last snapshot that make the next one due; while nothing changed, at least 100"
    }
    SNAPSHOT_BYTES_THRESHOLD = "CONFMAN_SNAPSHOT_BYTES_THRESHOLD" (Number) {
        Text("1073741824"), number(MIB, TIB, "bytes"), false,
        "Log bytes since the last snapshot that make the next one due"
    }
    SNAPSHOT_TIME_THRESHOLD_SECS = "CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS" (Seconds) {
        Text("3600"), Seconds { min: 1, max: 365 * DAY_SECS }, false,
        "Time since the last snapshot that makes the next one due if anything changed"
    }
    SNAPSHOT_DISK_FREE_PERCENT = "CONFMAN_SNAPSHOT_DISK_FREE_PERCENT" (Number) {
        Text("20"), number(0, 90, "percent"), false,
        "With less than this free on the disk of any member, 32 MiB of log since the last snapshot, and a quarter of its size, make the next one due: the log before the one before it goes; 0 for never"
    }
    SNAPSHOT_MAX_CONCURRENT = "CONFMAN_SNAPSHOT_MAX_CONCURRENT" (Number) {
        Text("2"), number(1, 64, "snapshots"), false,
        "How many a node builds at once"
    }
    SNAPSHOT_COMPRESSION = "CONFMAN_SNAPSHOT_COMPRESSION" (Choice<Compression>) {
        Text("zstd"),
        Choice(&[
            ("zstd", Compression::Zstd),
            ("gzip", Compression::Gzip),
            ("none", Compression::None),
        ]),
        false,
        "The codec of new snapshots; old ones are read whatever theirs is"
    }
    SNAPSHOT_RETENTION_COUNT = "CONFMAN_SNAPSHOT_RETENTION_COUNT" (Number) {
        Text("3"), number(1, 1000, "generations"), false,
        "Verified generations that are always kept"
    }
    SNAPSHOT_LOG_MARGIN = "CONFMAN_SNAPSHOT_LOG_MARGIN" (Number) {
        Text("1000"), number(0, 1_000_000_000, "entries"), false,
        "Log entries kept behind the snapshot for followers that lag"
    }
    SNAPSHOT_DELETE_GRACE_SECS = "CONFMAN_SNAPSHOT_DELETE_GRACE_SECS" (Seconds) {
        Text("30"), Seconds { min: 0, max: 365 * DAY_SECS }, false,
        "Time between marking an old snapshot and deleting it"
    }

    HEARTBEAT_MS = "CONFMAN_HEARTBEAT_MS" (Millis) {
        Text("250"), Millis { min: 10, max: 60_000 }, false,
        "How often a leader tells the others that it lives"
    }
    ELECTION_TIMEOUT_MIN_MS = "CONFMAN_ELECTION_TIMEOUT_MIN_MS" (Millis) {
        Text("1500"), Millis { min: 30, max: 600_000 }, false,
        "The shortest silence after which a follower stands for election; at least three heartbeats"
    }
    ELECTION_TIMEOUT_MAX_MS = "CONFMAN_ELECTION_TIMEOUT_MAX_MS" (Millis) {
        Text("3000"), Millis { min: 31, max: 600_000 }, false,
        "The longest such silence; above the shortest"
    }
    STORE_FENCE_INTERVAL_MS = "CONFMAN_STORE_FENCE_INTERVAL_MS" (Millis) {
        // A look has as long as the interval: below a second, an ordinary slow listing would count as no answer.
        Text("5000"), Millis { min: 1_000, max: 60_000 }, false,
        "How often a leader asks the store whether its cluster has a newer life; the same on every node. It acknowledges nothing when it has not asked for 2.4 of them, and a recovered life waits for three where old members are silent"
    }
    WRITE_TIMEOUT_MS = "CONFMAN_WRITE_TIMEOUT_MS" (Millis) {
        Text("10000"), Millis { min: 10, max: 600_000 }, false,
        "How long a write waits for its commit before it is answered 504"
    }
    READ_TIMEOUT_MS = "CONFMAN_READ_TIMEOUT_MS" (Millis) {
        Text("5000"), Millis { min: 10, max: 600_000 }, false,
        "How long a read waits for a leader or a version before it is answered 503 or 504"
    }
    VALUE_MAX_BYTES = "CONFMAN_VALUE_MAX_BYTES" (Number) {
        Text("104857600"), number(KIB, 100 * MIB, "bytes"), false,
        "The longest value that is taken; longer ones are answered 413"
    }
    STATE_CACHE_BYTES = "CONFMAN_STATE_CACHE_BYTES" (Number) {
        Text("33554432"), number(MIB, 64 * GIB, "bytes"), false,
        "Page cache of a group's database"
    }
    LOG_CACHE_BYTES = "CONFMAN_LOG_CACHE_BYTES" (Number) {
        Text("16777216"), number(MIB, 64 * GIB, "bytes"), false,
        "Newest entries of a group's log that are kept in memory"
    }
    LOG_FORMAT = "CONFMAN_LOG_FORMAT" (Choice<LogFormat>) {
        Text("text"), Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), false,
        "How log lines on stderr look"
    }
    LOG = "CONFMAN_LOG" (LogFilter) {
        Text("info,openraft=error,chunked_wal=warn,raft_log=warn,object_store=warn"), LogFilter, false,
        "What is logged"
    }
    OTLP_ENDPOINT = "CONFMAN_OTLP_ENDPOINT" (CollectorUrl) {
        Nothing("no traces are made"), CollectorUrl, false,
        "The OpenTelemetry collector that traces go to, by OTLP over gRPC"
    }
    OTLP_SAMPLE_RATIO = "CONFMAN_OTLP_SAMPLE_RATIO" (Ratio) {
        Text("0.1"), Ratio, false,
        "The part of the requests that is traced, where the client does not decide it (`traceparent`); snapshots are always traced"
    }
}

settings! {
    /// What clients (`confman get`, `confman import`, ...) read.
    CLIENT:

    ENDPOINTS = "CONFMAN_ENDPOINTS" (Endpoints) {
        Text("http://127.0.0.1:6100"), Endpoints, false,
        "The nodes to talk to; one that answers is enough"
    }
    API_KEY = "CONFMAN_API_KEY" (Secret) {
        Nothing("no key is sent"), Secret, true,
        "The API key, sent as `Authorization: Bearer`"
    }
    TLS_CLIENT_CA_FILE = "CONFMAN_TLS_CLIENT_CA_FILE" (FilePath) {
        Nothing("those that the system trusts"), FilePath, false,
        "The only authorities that are trusted with https, PEM"
    }
    TLS_CLIENT_CERT_FILE = "CONFMAN_TLS_CLIENT_CERT_FILE" (FilePath) {
        Nothing("no certificate is shown"), FilePath, false,
        "The certificate that is shown to nodes which ask for one, PEM"
    }
    TLS_CLIENT_KEY_FILE = "CONFMAN_TLS_CLIENT_KEY_FILE" (FilePath) {
        Nothing("as above"), FilePath, false,
        "The private key of that certificate, PEM"
    }
}

/// Every declared setting: a node's, then a client's.
pub fn all() -> impl Iterator<Item = &'static dyn Declared> {
    NODE.iter().chain(CLIENT).copied()
}

/// Every name that is allowed in the environment: the declared ones, and `_FILE` of the secrets.
pub fn names() -> impl Iterator<Item = String> {
    all().flat_map(|setting| {
        let file = setting
            .secret()
            .then(|| format!("{}{FILE_SUFFIX}", setting.name()));
        std::iter::once(setting.name().to_owned()).chain(file)
    })
}

/// Appended to a secret's name, it names the file that holds the secret.
pub const FILE_SUFFIX: &str = "_FILE";
