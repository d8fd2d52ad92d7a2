//! I20: what is given is what is in force, and can be seen with its source.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{Fake, env, machine, resolve};
use confman_config::catalog::{self, Fallback};
use confman_config::{
    ClientSettings, Compression, ExposeSecret, LogFormat, Settings, Source, ThisMachine,
    store_environment,
};

#[test]
fn i20_the_defaults_are_those_of_the_contract() {
    let settings = resolve(&[]).expect("defaults are right");
    assert_eq!(settings.node_name, "node1");
    assert_eq!(settings.data_dir.to_str(), Some("confman-data"));
    assert_eq!(settings.api_listen.to_string(), "127.0.0.1:6100");
    assert_eq!(settings.api_advertise, "http://127.0.0.1:6100");
    assert_eq!(settings.peer_listen.to_string(), "127.0.0.1:6101");
    assert_eq!(settings.peer_advertise, "127.0.0.1:6101");
    assert!(settings.peers.is_empty());
    assert!(settings.api_keys_file.is_none() && settings.cluster_token.is_none());
    assert_eq!(settings.shards, 1);
    assert_eq!(settings.object_store_url, "file://{data}/objects");
    assert_eq!(settings.heartbeat, Duration::from_millis(250));
    assert_eq!(settings.election_min, Duration::from_millis(1500));
    assert_eq!(settings.election_max, Duration::from_millis(3000));
    assert_eq!(settings.write_timeout, Duration::from_secs(10));
    assert_eq!(settings.store_fence_interval, Duration::from_secs(5));
    assert_eq!(settings.read_timeout, Duration::from_secs(5));
    assert_eq!(settings.body_max_bytes, 104_857_600);
    assert_eq!(settings.state_cache_bytes, 32 << 20);
    assert_eq!(settings.log_cache_bytes, 16 << 20);
    assert_eq!(settings.log_format, LogFormat::Text);
    assert_eq!(
        settings.log_level,
        "info,openraft=error,chunked_wal=warn,raft_log=warn,object_store=warn"
    );
    assert!(settings.otlp.is_none(), "traces are asked for");
    let snapshot = settings.snapshot;
    assert!(snapshot.enabled);
    assert_eq!(snapshot.log_threshold, 10_000);
    assert_eq!(snapshot.bytes_threshold, 1 << 30);
    assert_eq!(snapshot.time_threshold, Duration::from_secs(3600));
    assert_eq!(snapshot.disk_free_percent, 20);
    assert_eq!(snapshot.max_concurrent, 2);
    assert_eq!(snapshot.compression, Compression::Zstd);
    assert_eq!(snapshot.retention_count, 3);
    assert_eq!(snapshot.log_margin, 1000);
    assert_eq!(snapshot.delete_grace, Duration::from_secs(30));
}

/// For each setting a value that is not its default and goes with the defaults of the others.
fn other_values() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("CONFMAN_NODE_NAME", "other"),
        ("CONFMAN_DATA_DIR", "/var/lib/confman"),
        ("CONFMAN_API_LISTEN", "127.0.0.1:7100"),
        ("CONFMAN_API_ADVERTISE", "http://confman.example"),
        ("CONFMAN_PEER_LISTEN", "127.0.0.1:7101"),
        ("CONFMAN_PEER_ADVERTISE", "node1.example:6101"),
        ("CONFMAN_PEERS", "node1=h1:6101,node2=h2:6101"),
        ("CONFMAN_SHARDS", "4"),
        ("CONFMAN_API_KEYS_FILE", "/etc/confman/keys.json"),
        ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef"),
        ("CONFMAN_TLS_CERT_FILE", "/tls/cert.pem"),
        ("CONFMAN_TLS_KEY_FILE", "/tls/key.pem"),
        ("CONFMAN_TLS_CA_FILE", "/tls/ca.pem"),
        ("CONFMAN_TLS_API_CLIENT_CERTS", "required"),
        ("CONFMAN_OBJECT_STORE_URL", "s3://bucket/prefix"),
        ("CONFMAN_TLS_STORE_CA_FILE", "/tls/store-ca.pem"),
        ("CONFMAN_TLS_STORE_CERT_FILE", "/tls/store.pem"),
        ("CONFMAN_TLS_STORE_KEY_FILE", "/tls/store-key.pem"),
        ("CONFMAN_SNAPSHOT_ENABLED", "false"),
        ("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "500"),
        ("CONFMAN_SNAPSHOT_BYTES_THRESHOLD", "2097152"),
        ("CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS", "60"),
        ("CONFMAN_SNAPSHOT_DISK_FREE_PERCENT", "5"),
        ("CONFMAN_SNAPSHOT_MAX_CONCURRENT", "1"),
        ("CONFMAN_SNAPSHOT_COMPRESSION", "gzip"),
        ("CONFMAN_SNAPSHOT_RETENTION_COUNT", "5"),
        ("CONFMAN_SNAPSHOT_LOG_MARGIN", "0"),
        ("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "0"),
        ("CONFMAN_HEARTBEAT_MS", "100"),
        ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "1000"),
        ("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "4000"),
        ("CONFMAN_STORE_FENCE_INTERVAL_MS", "1000"),
        ("CONFMAN_WRITE_TIMEOUT_MS", "2000"),
        ("CONFMAN_READ_TIMEOUT_MS", "1000"),
        ("CONFMAN_VALUE_MAX_BYTES", "1048576"),
        ("CONFMAN_STATE_CACHE_BYTES", "16777216"),
        ("CONFMAN_LOG_CACHE_BYTES", "8388608"),
        ("CONFMAN_LOG_FORMAT", "json"),
        ("CONFMAN_LOG", "debug,openraft=warn,confman_node::api=trace"),
        ("CONFMAN_OTLP_ENDPOINT", "http://collector.example:4317"),
        ("CONFMAN_OTLP_SAMPLE_RATIO", "0.5"),
        ("CONFMAN_ENDPOINTS", "http://a:1,http://b:2"),
        ("CONFMAN_API_KEY", "0123456789abcdef"),
        ("CONFMAN_TLS_CLIENT_CA_FILE", "/tls/ca.pem"),
        ("CONFMAN_TLS_CLIENT_CERT_FILE", "/tls/client.pem"),
        ("CONFMAN_TLS_CLIENT_KEY_FILE", "/tls/client-key.pem"),
    ])
}

/// What else must be set for a setting to be right at all.
fn needed(name: &str) -> &'static [(&'static str, &'static str)] {
    const PAIR: [(&str, &str); 2] = [
        ("CONFMAN_TLS_CERT_FILE", "/cert"),
        ("CONFMAN_TLS_KEY_FILE", "/key"),
    ];
    const ALL: [(&str, &str); 3] = [PAIR[0], PAIR[1], ("CONFMAN_TLS_CA_FILE", "/ca")];
    const STORE: [(&str, &str); 1] = [("CONFMAN_OBJECT_STORE_URL", "s3://bucket/prefix")];
    const STORE_PAIR: [(&str, &str); 3] = [
        STORE[0],
        ("CONFMAN_TLS_STORE_CERT_FILE", "/cert"),
        ("CONFMAN_TLS_STORE_KEY_FILE", "/key"),
    ];
    match name {
        "CONFMAN_TLS_CERT_FILE" | "CONFMAN_TLS_KEY_FILE" | "CONFMAN_TLS_CA_FILE" => &PAIR,
        "CONFMAN_TLS_API_CLIENT_CERTS" => &ALL,
        "CONFMAN_OTLP_SAMPLE_RATIO" => &[("CONFMAN_OTLP_ENDPOINT", "http://collector:4317")],
        "CONFMAN_TLS_STORE_CA_FILE" => &STORE,
        "CONFMAN_TLS_STORE_CERT_FILE" | "CONFMAN_TLS_STORE_KEY_FILE" => &STORE_PAIR,
        "CONFMAN_TLS_CLIENT_CERT_FILE" => &[("CONFMAN_TLS_CLIENT_KEY_FILE", "/key")],
        "CONFMAN_TLS_CLIENT_KEY_FILE" => &[("CONFMAN_TLS_CLIENT_CERT_FILE", "/cert")],
        _ => &[],
    }
}

/// This setting with what it needs.
fn with_needed<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = needed(name).iter().filter(|(other, _)| *other != name);
    others.copied().chain([(name, value)]).collect()
}

/// Everything of the settings but the list that says what is in force.
fn typed(settings: &Settings) -> String {
    let debug = format!("{settings:?}");
    // The list is the last field.
    let (typed, _) = debug.split_once("effective: [").unwrap_or_default();
    assert!(!typed.is_empty(), "{debug}");
    typed.to_owned()
}

#[test]
fn i20_every_declared_setting_is_read_and_takes_effect() {
    let values = other_values();
    for setting in catalog::NODE {
        let value = values[setting.name()];
        let default = typed(&resolve(needed(setting.name())).expect("right without it"));
        let settings = resolve(&with_needed(setting.name(), value))
            .unwrap_or_else(|errors| panic!("{}={value}: {errors}", setting.name()));
        assert_ne!(
            typed(&settings),
            default,
            "{} changes nothing",
            setting.name()
        );
        let effective = settings.effective();
        let shown = effective
            .iter()
            .find(|shown| shown.name == setting.name())
            .expect("listed");
        assert_eq!(shown.source, Source::Environment);
        if !setting.secret() {
            assert_eq!(shown.value.as_deref(), Some(value));
        }
    }
    for setting in catalog::CLIENT {
        let value = values[setting.name()];
        let client = ClientSettings::resolve(env(&with_needed(setting.name(), value)), &machine());
        let effective = client.expect("right").effective();
        let shown = effective
            .iter()
            .find(|shown| shown.name == setting.name())
            .expect("listed");
        assert_eq!(shown.source, Source::Environment, "{}", setting.name());
    }
}

#[test]
fn i20_every_setting_is_listed_once_in_the_order_of_declaration() {
    let all: Vec<(&str, &str)> = other_values().into_iter().collect();
    for pairs in [&[][..], &all[..]] {
        // With all of them set, the name must be one of the peers, and the API speaks https.
        let pairs: Vec<_> = pairs
            .iter()
            .filter(|(name, _)| !["CONFMAN_NODE_NAME", "CONFMAN_API_ADVERTISE"].contains(name))
            .copied()
            .collect();
        let settings = resolve(&pairs).expect("right");
        let listed: Vec<&str> = settings
            .effective()
            .iter()
            .map(|shown| shown.name)
            .collect();
        let declared: Vec<&str> = catalog::NODE.iter().map(|setting| setting.name()).collect();
        assert_eq!(listed, declared);
    }
}

#[test]
fn i20_every_default_is_a_value_of_its_kind() {
    for setting in catalog::all() {
        if let Fallback::Text(text) = setting.fallback() {
            assert!(setting.accepts(text), "{}: {text}", setting.name());
        }
    }
}

#[test]
fn i20_no_name_is_declared_twice() {
    let mut names: Vec<String> = catalog::names().collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(names.iter().all(|name| name.starts_with("CONFMAN_")));
}

#[test]
fn i20_a_derived_value_names_its_source() {
    let settings = resolve(&[("CONFMAN_API_LISTEN", "127.0.0.1:7100")]).expect("right");
    let effective = settings.effective();
    let find = |name| {
        effective
            .iter()
            .find(|shown| shown.name == name)
            .expect("listed")
            .clone()
    };
    let advertise = find("CONFMAN_API_ADVERTISE");
    assert_eq!(advertise.value.as_deref(), Some("http://127.0.0.1:7100"));
    assert_eq!(advertise.source.to_string(), "from CONFMAN_API_LISTEN");
    assert_eq!(
        find("CONFMAN_NODE_NAME").source.to_string(),
        "from the host name"
    );
    let json = serde_json::to_value(find("CONFMAN_PEERS")).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({"name": "CONFMAN_PEERS", "value": null, "source": "default"})
    );
}

#[test]
fn i20_a_secret_comes_from_its_file_and_is_never_shown() {
    const CANARY: &str = "canary-0123456789";
    let machine = Fake {
        files: BTreeMap::from([("/run/token", format!("{CANARY}\n").into_bytes())]),
        ..machine()
    };
    let pairs = [("CONFMAN_CLUSTER_TOKEN_FILE", "/run/token")];
    let settings = Settings::resolve(env(&pairs), &machine).expect("right");
    let token = settings.cluster_token.as_ref().expect("there is one");
    assert_eq!(token.expose_secret(), CANARY);
    let effective = settings.effective();
    let shown = effective
        .iter()
        .find(|shown| shown.name == "CONFMAN_CLUSTER_TOKEN")
        .expect("listed");
    assert_eq!(shown.source, Source::File("/run/token".into()));
    let everything = format!(
        "{settings:?} {effective:?} {} {:?}",
        serde_json::to_string(&effective).expect("JSON"),
        settings.notices()
    );
    assert!(!everything.contains("canary"), "{everything}");

    let pairs = [("CONFMAN_API_KEY_FILE", "/run/token")];
    let client = ClientSettings::resolve(env(&pairs), &machine).expect("right");
    assert_eq!(
        client
            .api_key
            .as_ref()
            .expect("there is one")
            .expose_secret(),
        CANARY
    );
    assert!(!format!("{client:?} {:?}", client.effective()).contains("canary"));
}

#[test]
fn i20_a_secret_file_that_cannot_serve_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    for (path, why) in [
        (directory.path().join("absent"), "No such file"),
        (directory.path().to_owned(), "not a regular file"),
        (file("empty", b"\n"), "it is empty"),
        (file("binary", b"\xff\xfe"), "it is not UTF-8"),
        (file("long", &[b'x'; 20_000]), "longer than"),
        (
            file("two-lines", b"first-canary\nsecond\n"),
            "control character",
        ),
    ] {
        let pairs = [("CONFMAN_CLUSTER_TOKEN_FILE", path.to_str().expect("text"))];
        let errors = Settings::resolve(env(&[("CONFMAN_NODE_NAME", "n"), pairs[0]]), &ThisMachine)
            .expect_err("no secret there");
        let text = errors.to_string();
        assert!(
            text.contains(why) && text.contains("CONFMAN_CLUSTER_TOKEN"),
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn i20_a_client_ignores_a_nodes_values_but_not_unknown_names() {
    let machine = machine();
    let client = ClientSettings::resolve(env(&[("CONFMAN_SHARDS", "wrong")]), &machine);
    assert_eq!(
        client.expect("not its business").endpoints,
        ["http://127.0.0.1:6100"]
    );
    let client = ClientSettings::resolve(env(&[("CONFMAN_ENDPONTS", "http://a:1")]), &machine);
    client.expect_err("it would talk to the wrong cluster");
}

#[test]
fn endpoints_are_normalized() {
    let pairs = [("CONFMAN_ENDPOINTS", "http://A:1/, http://b:2,http://a:1")];
    let client = ClientSettings::resolve(env(&pairs), &machine()).expect("right");
    assert_eq!(client.endpoints, ["http://a:1", "http://b:2"]);
}

#[test]
fn notices_tell_what_is_allowed_and_yet_dangerous() {
    let quiet = [
        ("CONFMAN_API_KEYS_FILE", "keys.json"),
        ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef"),
        ("CONFMAN_OBJECT_STORE_URL", "s3://bucket"),
        ("CONFMAN_PEERS", "node1=a:1,node2=b:1"),
    ];
    assert_eq!(
        resolve(&quiet).expect("right").notices(),
        Vec::<String>::new()
    );
    let notices = resolve(&[
        ("CONFMAN_CLUSTER_TOKEN", "short"),
        ("CONFMAN_PEERS", "node1=a:1,node2=b:1"),
    ])
    .expect("right")
    .notices()
    .join("\n");
    for part in [
        "loopback only (127.0.0.1:6100)",
        "could be guessed",
        "other nodes cannot read",
    ] {
        assert!(notices.contains(part), "{notices}");
    }
    assert!(
        !notices.contains("short\n") && !notices.contains("`short`"),
        "{notices}"
    );
    // A node alone with its snapshots on its own disk; and no snapshots at all, where the place of the store says nothing.
    let of = |name: &'static str, value: &'static str| {
        let pairs = [
            ("CONFMAN_API_KEYS_FILE", "keys.json"),
            ("CONFMAN_NODE_NAME", "node1"),
            (name, value),
        ];
        resolve(&pairs).expect("right").notices()
    };
    let alone = of("CONFMAN_OBJECT_STORE_URL", "file://{data}/objects");
    assert!(
        alone.len() == 1 && alone[0].contains("lost together with this node's disk"),
        "{alone:?}"
    );
    assert_eq!(
        of("CONFMAN_OBJECT_STORE_URL", "file:///elsewhere"),
        Vec::<String>::new()
    );
    let off = of("CONFMAN_SNAPSHOT_ENABLED", "false");
    assert!(
        off.len() == 1 && off[0].contains("the log is never purged"),
        "{off:?}"
    );
}

#[test]
fn the_stores_variables_are_listed_without_secrets() {
    let listed = store_environment(env(&[
        ("AWS_SECRET_ACCESS_KEY", "canary"),
        ("AWS_REGION", "eu-north-1"),
        ("AWS_ENDPOINT_URL", "http://user:canary@host"),
        ("AWS_REGOIN", "canary"),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", "canary"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("CONFMAN_SHARDS", "1"),
    ]));
    let names: Vec<&str> = listed
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_REGOIN",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_STORAGE_ACCOUNT_NAME",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
        ]
    );
    assert!(!format!("{listed:?}").contains("canary"), "{listed:?}");
    assert_eq!(listed[1].value, "eu-north-1");
    assert_eq!(
        listed
            .iter()
            .filter(|variable| !variable.used)
            .map(|v| v.name.as_str())
            .collect::<Vec<_>>(),
        ["AWS_REGOIN"]
    );
}
