//! I20: a setting that is unknown or wrong is refused at start, all of them at once, each with what was
//! expected.

use crate::common::{Fake, env, machine, only_refusal, refusal, resolve};
use confman_config::{ClientSettings, SettingError, Settings};

#[test]
fn i20_everything_wrong_is_named_at_once() {
    let errors = resolve(&[
        ("CONFMAN_SHARDS", "none"),
        ("CONFMAN_SNAPSHOT_COMPRESSION", "lz4"),
        ("CONFMAN_SNAPSHOT_RETENTION_COUNT", "0"),
        ("CONFMAN_API_LISTEN", "0.0.0.0:6100"),
        ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "150"),
        ("CONFMAN_HEARTBEATS", "10"),
        ("CONFMAN_PEERS", "node7=host:6101"),
        ("CONFMAN_LOG", "inof"),
    ])
    .expect_err("eight mistakes");
    let named: Vec<&str> = errors.all().iter().flat_map(SettingError::names).collect();
    for name in [
        "CONFMAN_SHARDS",
        "CONFMAN_SNAPSHOT_COMPRESSION",
        "CONFMAN_SNAPSHOT_RETENTION_COUNT",
        "CONFMAN_API_LISTEN",
        "CONFMAN_API_ADVERTISE",
        "CONFMAN_ELECTION_TIMEOUT_MIN_MS",
        "CONFMAN_HEARTBEATS",
        "CONFMAN_PEERS",
        "CONFMAN_LOG",
    ] {
        assert!(named.contains(&name), "{name} is missing in {named:?}");
    }
    let text = errors.to_string();
    assert!(text.starts_with("9 settings are wrong\n"), "{text}");
    assert_eq!(
        text.matches("hint: ").count(),
        9,
        "each with one hint: {text}"
    );
}

#[test]
fn i20_a_wrong_value_is_shown_with_what_was_expected() {
    for (name, value, parts) in [
        ("CONFMAN_NODE_NAME", "a b", vec!["`a b`", "1 to 64 letters"]),
        (
            "CONFMAN_SHARDS",
            "0",
            vec!["`0`", "a whole number from 1 to 256"],
        ),
        ("CONFMAN_SHARDS", "-1", vec!["`-1`"]),
        ("CONFMAN_SHARDS", "+1", vec!["`+1`"]),
        (
            "CONFMAN_SHARDS",
            "99999999999999999999",
            vec!["`99999999999999999999`"],
        ),
        (
            "CONFMAN_SNAPSHOT_RETENTION_COUNT",
            "0",
            vec!["whole number of generations from 1 to"],
        ),
        ("CONFMAN_SNAPSHOT_ENABLED", "yes", vec!["`true` or `false`"]),
        (
            "CONFMAN_SNAPSHOT_COMPRESSION",
            "zst",
            vec!["`zstd`, `gzip` or `none`"],
        ),
        (
            "CONFMAN_HEARTBEAT_MS",
            "5",
            vec!["whole number of milliseconds from 10 to"],
        ),
        (
            "CONFMAN_API_LISTEN",
            "localhost:6100",
            vec!["an IP address and a port"],
        ),
        ("CONFMAN_API_LISTEN", "127.0.0.1:0", vec!["port 0"]),
        (
            "CONFMAN_API_ADVERTISE",
            "node1:6100",
            vec!["neither http nor https"],
        ),
        (
            "CONFMAN_API_ADVERTISE",
            "http://node1/api",
            vec!["goes on after the port"],
        ),
        (
            "CONFMAN_API_ADVERTISE",
            "http://0.0.0.0:6100",
            vec!["nobody can connect to 0.0.0.0"],
        ),
        (
            "CONFMAN_PEER_ADVERTISE",
            "node1",
            vec!["the port is missing"],
        ),
        (
            "CONFMAN_PEER_ADVERTISE",
            "node1:+80",
            vec!["the port is not a number"],
        ),
        (
            "CONFMAN_PEER_ADVERTISE",
            "[::]:6101",
            vec!["nobody can connect to ::"],
        ),
        ("CONFMAN_PEERS", "node1", vec!["peer 1: the `=` is missing"]),
        (
            "CONFMAN_PEERS",
            "node1=a:1,node1=b:1",
            vec!["peer 2: it has the name of `node1`"],
        ),
        (
            "CONFMAN_PEERS",
            "node1=a:1,node2=A:1",
            vec!["peer 2: it has the address of `node1`"],
        ),
        ("CONFMAN_PEERS", "node1=a:1,", vec!["peer 2"]),
        (
            "CONFMAN_OBJECT_STORE_URL",
            "ftp://x",
            vec!["the scheme is not one of these", "s3://"],
        ),
        (
            "CONFMAN_OBJECT_STORE_URL",
            "s3://",
            vec!["the bucket is missing"],
        ),
        (
            "CONFMAN_OBJECT_STORE_URL",
            "file://objects",
            vec!["the path is not absolute"],
        ),
        (
            "CONFMAN_OBJECT_STORE_URL",
            "file:///a/../b",
            vec!["`.` or `..`"],
        ),
        (
            "CONFMAN_OBJECT_STORE_URL",
            "s3://b/{data}",
            vec!["only right after `file://`"],
        ),
        ("CONFMAN_LOG", "info,openraft=loud", vec!["part 2"]),
        ("CONFMAN_LOG_FORMAT", "xml", vec!["`text` or `json`"]),
        (
            "CONFMAN_OTLP_ENDPOINT",
            "collector:4317",
            vec!["a URL of scheme `http`, host and port"],
        ),
        (
            "CONFMAN_OTLP_ENDPOINT",
            "https://collector:4317",
            vec!["https is not spoken to a collector"],
        ),
        (
            "CONFMAN_OTLP_ENDPOINT",
            "http://collector:4318/v1/traces",
            vec!["it goes on after the port"],
        ),
    ] {
        let text = only_refusal(&[(name, value)]);
        for part in [name].into_iter().chain(parts) {
            assert!(
                text.contains(part),
                "{name}={value}: `{part}` is missing in: {text}"
            );
        }
    }
}

#[test]
fn i20_a_sample_ratio_is_a_part_of_a_whole() {
    let endpoint = ("CONFMAN_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    for value in [
        "1.1", "-0.1", "+0.5", "1e-3", "inf", "NaN", "0,5", "1%", ".", "half",
    ] {
        let text = only_refusal(&[endpoint, ("CONFMAN_OTLP_SAMPLE_RATIO", value)]);
        assert!(text.contains("a number from 0 to 1"), "{value}: {text}");
    }
    for (value, ratio) in [("0", 0.0), ("0.01", 0.01), ("1", 1.0), ("1.0", 1.0)] {
        let settings = resolve(&[endpoint, ("CONFMAN_OTLP_SAMPLE_RATIO", value)]).expect(value);
        let otlp = settings.otlp.expect("an endpoint was given");
        assert_eq!(otlp.endpoint, "http://127.0.0.1:4317");
        assert!((otlp.sample_ratio - ratio).abs() < f64::EPSILON, "{value}");
    }
}

#[test]
fn i20_an_unknown_name_is_refused_with_the_nearest() {
    for (name, meant) in [
        ("CONFMAN_NODENAME", "CONFMAN_NODE_NAME"),
        (
            "CONFMAN_SNAPSHOT_RETENTION",
            "CONFMAN_SNAPSHOT_RETENTION_COUNT",
        ),
        (
            "CONFMAN_RETENTION_COUNT",
            "CONFMAN_SNAPSHOT_RETENTION_COUNT",
        ),
        ("CONFMAN_CLUSTER_TOKEN_FIEL", "CONFMAN_CLUSTER_TOKEN_FILE"),
        ("CONFMAN_ENDPONTS", "CONFMAN_ENDPOINTS"),
        ("confman_shards", "CONFMAN_SHARDS"),
        ("CONFMAN_NODE_NAME_FILE", "CONFMAN_NODE_NAME"),
    ] {
        let text = only_refusal(&[(name, "x")]);
        assert!(text.contains(&format!("{name} is not a setting")), "{text}");
        assert!(
            text.contains("did you mean ") && text.contains(meant),
            "{text}"
        );
    }
    let text = only_refusal(&[("CONFMAN_QQQQQQ", "x")]);
    assert!(!text.contains("did you mean"), "{text}");
}

#[test]
fn i20_what_kubernetes_sets_is_refused_with_its_remedy() {
    for (name, value) in [
        ("CONFMAN_SERVICE_HOST", "10.0.0.1"),
        ("CONFMAN_PORT", "tcp://10.0.0.1:6100"),
        ("CONFMAN_PORT_6100_TCP_ADDR", "10.0.0.1"),
    ] {
        assert!(
            only_refusal(&[(name, value)]).contains("enableServiceLinks: false"),
            "{name}"
        );
    }
}

#[test]
fn i20_an_empty_value_is_not_the_default() {
    let text = only_refusal(&[("CONFMAN_API_KEYS_FILE", "")]);
    assert!(text.contains("CONFMAN_API_KEYS_FILE is empty"), "{text}");
}

#[test]
fn i20_a_name_given_twice_is_refused() {
    let text = only_refusal(&[("CONFMAN_SHARDS", "1"), ("CONFMAN_SHARDS", "2")]);
    assert!(
        text.contains("CONFMAN_SHARDS is given more than once"),
        "{text}"
    );
}

#[test]
fn i20_other_peoples_names_pass() {
    let settings = resolve(&[("PATH", "/bin"), ("AWS_REGION", "x"), ("CONFMANIA", "x")]);
    settings.expect("none of these is ours");
}

#[test]
fn i20_elections_need_room_for_heartbeats() {
    let text = only_refusal(&[
        ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "150"),
        ("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "300"),
    ]);
    assert!(
        text.contains("set CONFMAN_HEARTBEAT_MS to at most 50"),
        "{text}"
    );
    resolve(&[
        ("CONFMAN_HEARTBEAT_MS", "50"),
        ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "150"),
        ("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "300"),
    ])
    .expect("the remedy works");
    resolve(&[("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "750")]).expect("three heartbeats");
    let text = only_refusal(&[("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "749")]);
    assert!(
        text.contains("CONFMAN_ELECTION_TIMEOUT_MIN_MS is 749"),
        "{text}"
    );
    let text = only_refusal(&[("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "1500")]);
    assert!(
        text.contains("CONFMAN_ELECTION_TIMEOUT_MAX_MS is 1500"),
        "{text}"
    );
}

#[test]
fn i20_a_node_without_keys_or_token_listens_on_loopback_only() {
    let advertise = [
        ("CONFMAN_API_ADVERTISE", "http://node1:6100"),
        ("CONFMAN_PEER_ADVERTISE", "node1:6101"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&advertise[..], more].concat();
    let open_api = ("CONFMAN_API_LISTEN", "0.0.0.0:6100");
    let open_peers = ("CONFMAN_PEER_LISTEN", "[::]:6101");
    let text = only_refusal(&with(&[open_api]));
    assert!(text.contains("CONFMAN_API_KEYS_FILE is not set"), "{text}");
    assert!(text.contains("confman key create"), "{text}");
    let text = only_refusal(&with(&[open_peers]));
    assert!(text.contains("CONFMAN_CLUSTER_TOKEN is not set"), "{text}");
    resolve(&with(&[
        open_api,
        open_peers,
        ("CONFMAN_API_KEYS_FILE", "keys.json"),
        ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef"),
    ]))
    .expect("with both");
    resolve(&[("CONFMAN_API_LISTEN", "[::1]:6100")]).expect("IPv6 has a loopback too");
}

#[test]
fn i20_a_node_that_listens_everywhere_says_where_it_is() {
    let text = only_refusal(&[
        ("CONFMAN_PEER_LISTEN", "0.0.0.0:6101"),
        ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef"),
    ]);
    assert!(text.contains("CONFMAN_PEER_ADVERTISE is not set"), "{text}");
    let settings = resolve(&[
        ("CONFMAN_PEER_LISTEN", "0.0.0.0:6101"),
        ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef"),
        (
            "CONFMAN_PEERS",
            "node1=first.example:6101,node2=second.example:6101",
        ),
    ])
    .expect("the peers say where it is");
    assert_eq!(settings.peer_advertise, "first.example:6101");
}

#[test]
fn i20_two_listeners_need_two_sockets() {
    let text = only_refusal(&[("CONFMAN_PEER_LISTEN", "127.0.0.1:6100")]);
    assert!(text.contains("they need different ports"), "{text}");
}

#[test]
fn i20_a_node_is_one_of_its_peers() {
    let text = only_refusal(&[("CONFMAN_PEERS", "a=h:1,b=h:2")]);
    assert!(
        text.contains("CONFMAN_NODE_NAME is `node1` (the host name)"),
        "{text}"
    );
    assert!(text.contains("set CONFMAN_NODE_NAME to a or b"), "{text}");
}

#[test]
fn i20_a_machine_without_a_usable_name_must_be_told_one() {
    for host_name in [None, Some("my machine".to_owned())] {
        let nameless = Fake {
            host_name,
            ..Fake::default()
        };
        let errors = Settings::resolve(env(&[]), &nameless).expect_err("no name");
        assert_eq!(errors.all().len(), 1, "{errors}");
        assert!(errors.to_string().contains("CONFMAN_NODE_NAME"), "{errors}");
        Settings::resolve(env(&[("CONFMAN_NODE_NAME", "n")]), &nameless).expect("told");
    }
}

#[test]
fn i20_a_secret_is_never_in_an_error() {
    const CANARY: &str = "canary secret";
    let mut texts = vec![
        refusal(&[("CONFMAN_CLUSTER_TOKEN", CANARY)]),
        refusal(&[
            ("CONFMAN_CLUSTER_TOKEN", CANARY),
            ("CONFMAN_CLUSTER_TOKEN_FILE", "/x"),
        ]),
        refusal(&[("CONFMAN_OBJECT_STORE_URL", "s3://user:canary@bucket/x")]),
        refusal(&[("CONFMAN_API_ADVERTISE", "http://user:canary@host:1")]),
    ];
    let client = ClientSettings::resolve(env(&[("CONFMAN_API_KEY", CANARY)]), &machine());
    texts.push(client.expect_err("a space in it").to_string());
    for text in texts {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn i20_hostile_text_is_printed_harmlessly() {
    let long = "x".repeat(100_000);
    let text = refusal(&[
        ("CONFMAN_SHARDS", "\x1b[2J\n\u{202e}"),
        ("CONFMAN_DATA_DIR", "a\nb"),
        ("CONFMAN_LOG", &long),
    ]);
    assert!(
        !text.contains('\x1b') && !text.contains('\u{202e}'),
        "{text:?}"
    );
    assert!(text.contains("control character"), "{text}");
    assert!(text.len() < 5000, "an error is bounded: {}", text.len());
}

#[cfg(unix)]
#[test]
fn i20_text_that_is_not_utf_8_is_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![b'a', 0xff]);
    let errors = Settings::resolve([("CONFMAN_DATA_DIR".into(), bad())], &machine());
    assert!(
        errors
            .expect_err("not text")
            .to_string()
            .contains("it is not UTF-8")
    );
    let mut name = OsString::from("CONFMAN_");
    name.push(bad());
    let errors = Settings::resolve([(name, "x".into())], &machine());
    assert!(
        errors
            .expect_err("not text")
            .to_string()
            .contains("is not a setting")
    );
}

#[test]
fn i20_errors_have_a_shape_for_programs() {
    let errors = resolve(&[("CONFMAN_SHARDS", "x")]).expect_err("not a number");
    let json = serde_json::to_value(errors.all()).expect("JSON");
    assert_eq!(json[0]["names"][0], "CONFMAN_SHARDS");
    assert!(
        json[0]["problem"]
            .as_str()
            .is_some_and(|text| text.contains("expected"))
    );
    assert!(json[0]["hint"].is_string());
}
