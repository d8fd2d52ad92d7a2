//! I20: what must hold between the settings of TLS.

use crate::common::{env, machine, only_refusal, refusal, resolve};
use confman_config::{ClientCertificates, ClientSettings};

const CERT: (&str, &str) = ("CONFMAN_TLS_CERT_FILE", "/tls/cert.pem");
const KEY: (&str, &str) = ("CONFMAN_TLS_KEY_FILE", "/tls/key.pem");
const CA: (&str, &str) = ("CONFMAN_TLS_CA_FILE", "/tls/ca.pem");
const THREE: (&str, &str) = ("CONFMAN_PEERS", "node1=a:1,node2=b:1,node3=c:1");

#[test]
fn without_a_certificate_everything_is_as_it_was() {
    let settings = resolve(&[]).expect("right");
    assert_eq!(settings.tls, None);
    assert_eq!(settings.api_advertise, "http://127.0.0.1:6100");
}

#[test]
fn with_a_certificate_the_api_is_advertised_as_https() {
    let settings = resolve(&[CERT, KEY]).expect("right");
    assert_eq!(settings.api_advertise, "https://127.0.0.1:6100");
    let tls = settings.tls.expect("set");
    assert_eq!(tls.cert_file.to_str(), Some(CERT.1));
    assert_eq!(
        (tls.ca_file, tls.api_client_certs),
        (None, ClientCertificates::None)
    );
    let settings = resolve(&[
        CERT,
        KEY,
        CA,
        THREE,
        ("CONFMAN_TLS_API_CLIENT_CERTS", "required"),
    ]);
    let tls = settings.expect("right").tls.expect("set");
    assert_eq!(tls.api_client_certs, ClientCertificates::Required);
    assert!(tls.ca_file.is_some());
}

#[test]
fn i20_a_certificate_and_its_key_go_together() {
    let text = only_refusal(&[CERT]);
    assert!(text.contains("CONFMAN_TLS_KEY_FILE is not"), "{text}");
    let text = only_refusal(&[KEY]);
    assert!(text.contains("CONFMAN_TLS_CERT_FILE is not"), "{text}");
    for pairs in [
        [("CONFMAN_TLS_CLIENT_CERT_FILE", "c")],
        [("CONFMAN_TLS_CLIENT_KEY_FILE", "k")],
    ] {
        let errors = ClientSettings::resolve(env(&pairs), &machine()).expect_err("half");
        assert_eq!(errors.all().len(), 1, "{errors}");
    }
    // One that is given and empty is one mistake.
    let text = only_refusal(&[("CONFMAN_TLS_CERT_FILE", ""), KEY, CA]);
    assert!(text.contains("is empty"), "{text}");
}

#[test]
fn i20_what_has_no_effect_without_a_certificate_is_refused() {
    let text = only_refusal(&[CA]);
    assert!(
        text.contains("CONFMAN_TLS_CA_FILE is set and CONFMAN_TLS_CERT_FILE is not"),
        "{text}"
    );
    let text = only_refusal(&[("CONFMAN_TLS_API_CLIENT_CERTS", "required")]);
    assert!(text.contains("speaks no TLS"), "{text}");
}

#[test]
fn i20_peers_need_an_authority_to_know_each_other_by() {
    let text = only_refusal(&[CERT, KEY, THREE]);
    assert!(
        text.contains("3 nodes") && text.contains("set CONFMAN_TLS_CA_FILE"),
        "{text}"
    );
    let token = ("CONFMAN_CLUSTER_TOKEN", "0123456789abcdef");
    let anywhere = ("CONFMAN_PEER_LISTEN", "10.0.0.1:6101");
    let text = only_refusal(&[CERT, KEY, token, anywhere]);
    assert!(text.contains("loopback only"), "{text}");
    resolve(&[CERT, KEY, CA, token, anywhere]).expect("with an authority");
    let text = only_refusal(&[CERT, KEY, ("CONFMAN_TLS_API_CLIENT_CERTS", "required")]);
    assert!(
        text.contains("no client's certificate could be judged"),
        "{text}"
    );
}

#[test]
fn i20_clients_are_not_sent_to_a_scheme_that_is_not_spoken() {
    let text = only_refusal(&[CERT, KEY, ("CONFMAN_API_ADVERTISE", "http://n1:6100")]);
    assert!(
        text.contains("set CONFMAN_API_ADVERTISE to https://n1:6100"),
        "{text}"
    );
    let text = only_refusal(&[("CONFMAN_API_ADVERTISE", "https://n1:6100")]);
    assert!(text.contains("CONFMAN_TLS_CERT_FILE"), "{text}");
    resolve(&[CERT, KEY, ("CONFMAN_API_ADVERTISE", "https://n1:6100")]).expect("the same");
}

#[test]
fn i20_all_of_it_is_told_at_once() {
    let text = refusal(&[
        CERT,
        ("CONFMAN_API_ADVERTISE", "http://n1:6100"),
        THREE,
        ("CONFMAN_TLS_API_CLIENT_CERTS", "required"),
    ]);
    assert!(text.starts_with("4 settings are wrong\n"), "{text}");
}

#[test]
fn a_client_is_told_whom_to_trust_and_what_to_show() {
    let pairs = [
        ("CONFMAN_TLS_CLIENT_CA_FILE", "/ca"),
        ("CONFMAN_TLS_CLIENT_CERT_FILE", "/c"),
        ("CONFMAN_TLS_CLIENT_KEY_FILE", "/k"),
    ];
    let tls = ClientSettings::resolve(env(&pairs), &machine())
        .expect("right")
        .tls;
    assert_eq!(tls.ca_file.as_deref().and_then(|p| p.to_str()), Some("/ca"));
    assert_eq!(tls.identity, Some(("/c".into(), "/k".into())));
}

#[test]
fn i20_what_is_shown_to_the_store_is_whole_and_has_somebody_to_be_shown_to() {
    const STORE: (&str, &str) = ("CONFMAN_OBJECT_STORE_URL", "s3://bucket/x");
    const CERT: (&str, &str) = ("CONFMAN_TLS_STORE_CERT_FILE", "/tls/store.pem");
    const KEY: (&str, &str) = ("CONFMAN_TLS_STORE_KEY_FILE", "/tls/store-key.pem");
    const CA: (&str, &str) = ("CONFMAN_TLS_STORE_CA_FILE", "/tls/store-ca.pem");
    let tls = resolve(&[STORE, CERT, KEY, CA]).expect("right").store_tls;
    assert_eq!(tls.ca_file, Some(CA.1.into()));
    assert_eq!(tls.identity, Some((CERT.1.into(), KEY.1.into())));
    let text = only_refusal(&[STORE, CERT]);
    assert!(
        text.contains("CONFMAN_TLS_STORE_CERT_FILE is set and CONFMAN_TLS_STORE_KEY_FILE is not"),
        "{text}"
    );
    let text = only_refusal(&[STORE, KEY]);
    assert!(text.contains("set CONFMAN_TLS_STORE_CERT_FILE"), "{text}");
    // The default store is a folder.
    let text = refusal(&[CERT, KEY, CA]);
    assert!(text.starts_with("2 settings are wrong\n"), "{text}");
    assert!(
        text.contains("CONFMAN_TLS_STORE_CA_FILE is set and CONFMAN_OBJECT_STORE_URL is file://"),
        "{text}"
    );
}
