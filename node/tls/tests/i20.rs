//! I20: files that will not do are refused by name, all at once, each with the remedy; and what is taken here is what a
//! handshake takes.

// Helpers of tests may fail loudly, as tests do.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use confman_tls::throwaway::{Authority, Issued, Order};
use confman_tls::{ClientFiles, Credentials, FileErrors, NamedFile, NodeFiles};
use tempfile::TempDir;

const CERT: &str = "CONFMAN_TLS_CERT_FILE";
const KEY: &str = "CONFMAN_TLS_KEY_FILE";
const CA: &str = "CONFMAN_TLS_CA_FILE";
const HOUR: Duration = Duration::from_secs(3600);

struct Kit {
    dir: TempDir,
    now: SystemTime,
    authority: Authority,
}

impl Kit {
    fn new() -> Self {
        let now = SystemTime::now();
        Self {
            dir: tempfile::tempdir().unwrap(),
            now,
            authority: Authority::new("test", now, 30).unwrap(),
        }
    }

    fn issue(&self, change: impl FnOnce(&mut Order<'_>)) -> Issued {
        let mut order = Order::node(&["node1", "10.0.0.1"], self.now, 10);
        change(&mut order);
        self.authority.issue(&order).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A node's files with what was issued.
    fn files(&self, issued: &Issued) -> NodeFiles {
        self.write("cert.pem", &issued.cert);
        self.write("key.pem", &issued.key);
        self.write("ca.pem", &self.authority.pem());
        let file = |setting, name: &str| NamedFile::new(setting, self.dir.path().join(name));
        NodeFiles {
            cert: file(CERT, "cert.pem"),
            key: file(KEY, "key.pem"),
            ca: Some(file(CA, "ca.pem")),
            api_client_certs: true,
            peer_host: Some("node1".to_owned()),
            api_host: Some("node1".to_owned()),
        }
    }

    fn judge(&self, files: &NodeFiles) -> Result<Credentials, FileErrors> {
        files.read()?.judge(files, self.now)
    }

    /// The one error that there must be.
    #[track_caller]
    fn only_refusal(&self, files: &NodeFiles) -> (&'static str, String) {
        let errors = self.judge(files).map(|_| ()).unwrap_err();
        assert_eq!(errors.all().len(), 1, "{errors}");
        let error = &errors.all()[0];
        assert!(!error.hint.is_empty(), "{error}");
        (error.setting, errors.to_string())
    }
}

#[test]
fn good_files_are_taken_and_their_portrait_tells_no_secret() {
    let kit = Kit::new();
    let issued = kit.issue(|_| {});
    let credentials = kit.judge(&kit.files(&issued)).unwrap();
    assert!(credentials.peers.is_some() && credentials.api_client.is_some());
    let portrait = &credentials.portrait;
    assert_eq!(portrait.names, ["node1"]);
    let ends = kit.now + Duration::from_secs(10 * 24 * 3600);
    let ends = ends
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(portrait.not_after, ends);
    assert!(portrait.ca_not_after.unwrap() > ends);
    assert!(portrait.notices.is_empty(), "{:?}", portrait.notices);
    let secret = issued.key.lines().nth(1).unwrap();
    assert!(!format!("{credentials:?}").contains(secret));
}

#[test]
fn i20_a_certificate_out_of_its_time_is_refused_with_both_times() {
    let kit = Kit::new();
    let expired = kit.issue(|order| order.until = kit.now - HOUR / 2);
    let (setting, text) = kit.only_refusal(&kit.files(&expired));
    assert_eq!(setting, CERT);
    let year = &confman_tls::rfc3339(
        kit.now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )[..4];
    assert!(
        text.contains("expired at") && text.matches(year).count() == 2,
        "{text}"
    );
    let early = kit.issue(|order| order.from = kit.now + HOUR);
    let (_, text) = kit.only_refusal(&kit.files(&early));
    assert!(text.contains("counts from"), "{text}");
}

#[test]
fn i20_what_the_others_would_not_take_is_refused_at_home() {
    let kit = Kit::new();
    let stranger = Authority::new("another", kit.now, 30).unwrap();
    let strange = stranger
        .issue(&Order::node(&["node1"], kit.now, 10))
        .unwrap();
    let (setting, text) = kit.only_refusal(&kit.files(&strange));
    assert_eq!(setting, CERT);
    assert!(
        text.contains("no authority in") && text.contains("ca.pem"),
        "{text}"
    );

    let server_only = kit.issue(|order| order.client = false);
    let (_, text) = kit.only_refusal(&kit.files(&server_only));
    assert!(text.contains("clientAuth"), "{text}");
    let client_only = kit.issue(|order| order.server = false);
    let (_, text) = kit.only_refusal(&kit.files(&client_only));
    assert!(text.contains("serverAuth"), "{text}");

    let mut files = kit.files(&kit.issue(|_| {}));
    for (host, named) in [
        ("node1", true),
        ("10.0.0.1", true),
        ("[::1]", false),
        ("node2", false),
        ("10.0.0.2", false),
    ] {
        files.peer_host = Some(host.to_owned());
        assert_eq!(kit.judge(&files).is_ok(), named, "{host}");
    }
    let (_, text) = kit.only_refusal(&files);
    assert!(
        text.contains("10.0.0.2") && text.contains("subject alternative names"),
        "{text}"
    );

    // Clients may come by other names, through a proxy: that is worth a line and no refusal.
    files.peer_host = None;
    files.api_host = Some("config.example".to_owned());
    let notices = kit.judge(&files).unwrap().portrait.notices;
    assert!(notices[0].contains("config.example"), "{notices:?}");
}

#[test]
fn i20_everything_wrong_with_the_files_is_told_at_once() {
    let kit = Kit::new();
    let mut files = kit.files(&kit.issue(|_| {}));
    files.cert.path = kit.dir.path().join("missing.pem");
    files.key.path = kit.dir.path().to_owned();
    kit.write("ca.pem", "");
    files.ca = Some(NamedFile::new(CA, "/dev/null"));
    let errors = files.read().map(|_| ()).unwrap_err();
    let settings: Vec<&str> = errors.all().iter().map(|e| e.setting).collect();
    assert_eq!(settings, [CERT, KEY, CA], "{errors}");

    // The same for what is in them.
    let mut files = kit.files(&kit.issue(|_| {}));
    kit.write("key.pem", "no key");
    kit.write("ca.pem", "no authority");
    files.ca = Some(NamedFile::new(CA, kit.dir.path().join("ca.pem")));
    let errors = kit.judge(&files).map(|_| ()).unwrap_err();
    let settings: Vec<&str> = errors.all().iter().map(|e| e.setting).collect();
    assert_eq!(settings, [KEY, CA], "{errors}");
    assert_eq!(errors.to_string().matches("hint: ").count(), 2, "{errors}");
}

#[test]
fn i20_each_mistake_of_a_hurried_operator_has_its_own_words() {
    let kit = Kit::new();
    let issued = kit.issue(|_| {});
    let other = kit.issue(|_| {});
    let files = kit.files(&issued);
    let with = |cert: &str, key: &str| {
        kit.write("cert.pem", cert);
        kit.write("key.pem", key);
        kit.only_refusal(&files)
    };
    let (setting, text) = with(&issued.cert, &other.key);
    assert_eq!(setting, KEY);
    assert!(
        text.contains("does not belong to the certificate"),
        "{text}"
    );
    let (_, text) = with(&issued.cert, &issued.cert);
    assert!(
        text.contains("no private key") && text.contains("taken for each other"),
        "{text}"
    );
    let (_, text) = with(&issued.key, &issued.key);
    assert!(
        text.contains("no certificate") && text.contains("taken for each other"),
        "{text}"
    );
    let (_, text) = with(&issued.cert[..issued.cert.len() / 2], &issued.key);
    assert!(text.contains("not well-formed PEM"), "{text}");
    let (_, text) = with(
        &issued.cert,
        &issued.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    );
    assert!(text.contains("passphrase"), "{text}");
    let (_, text) = with(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &issued.key,
    );
    assert!(text.contains("cannot be read"), "{text}");
    let secret = other.key.lines().nth(1).unwrap();
    let (_, text) = with(&issued.cert, &other.key[..other.key.len() / 2]);
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn a_key_that_everybody_can_read_is_worth_a_notice() {
    let kit = Kit::new();
    let files = kit.files(&kit.issue(|_| {}));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&files.key.path, open).unwrap();
    let notices = kit.judge(&files).unwrap().portrait.notices;
    assert!(
        notices.len() == 1 && notices[0].contains("644") && notices[0].contains("chmod"),
        "{notices:?}"
    );
}

#[test]
fn an_authority_that_has_expired_does_not_count_any_more() {
    let kit = Kit::new();
    let old = Authority::new("old", kit.now - HOUR * 48, 1).unwrap();
    let files = kit.files(&kit.issue(|_| {}));
    kit.write("ca.pem", &format!("{}{}", old.pem(), kit.authority.pem()));
    let credentials = kit.judge(&files).unwrap();
    assert!(
        credentials.portrait.notices[0].contains("expired"),
        "{:?}",
        credentials.portrait
    );
    kit.write("ca.pem", &old.pem());
    let (setting, text) = kit.only_refusal(&files);
    assert_eq!(setting, CA);
    assert!(text.contains("every authority in it has expired"), "{text}");
}

#[test]
fn a_bundle_of_two_authorities_takes_certificates_of_both() {
    let kit = Kit::new();
    let new = Authority::new("test", kit.now, 30).unwrap();
    let files = kit.files(&kit.issue(|_| {}));
    kit.write("ca.pem", &format!("{}{}", kit.authority.pem(), new.pem()));
    kit.judge(&files).unwrap();
    let issued = new.issue(&Order::node(&["node1"], kit.now, 10)).unwrap();
    kit.write("cert.pem", &issued.cert);
    kit.write("key.pem", &issued.key);
    kit.judge(&files).unwrap();
}

#[test]
fn contents_are_equal_when_the_files_are() {
    let kit = Kit::new();
    let files = kit.files(&kit.issue(|_| {}));
    let before = files.read().unwrap().digest();
    assert_eq!(files.read().unwrap().digest(), before);
    kit.files(&kit.issue(|_| {}));
    assert_ne!(files.read().unwrap().digest(), before);
}

#[test]
fn i20_a_clients_files_are_judged_too() {
    let kit = Kit::new();
    let issued = kit.issue(|order| order.server = false);
    let files = kit.files(&issued);
    let client = |ca: &Path, key: &Path| ClientFiles {
        ca: Some(NamedFile::new("CONFMAN_TLS_CLIENT_CA_FILE", ca)),
        identity: Some((
            files.cert.clone(),
            NamedFile::new("CONFMAN_TLS_CLIENT_KEY_FILE", key),
        )),
    };
    let ca = files.ca.as_ref().unwrap().path.clone();
    let tls = client(&ca, &files.key.path).load(kit.now).unwrap();
    assert!(tls.roots().is_some() && tls.identity_pem().is_some());
    assert!(!format!("{tls:?}").contains("BEGIN"));
    let errors = client(&files.key.path, &ca).load(kit.now).unwrap_err();
    assert_eq!(errors.all().len(), 2, "{errors}");
    assert!(!errors.only_by_time(), "{errors}");
    let expired = client(&ca, &files.key.path)
        .load(kit.now + HOUR * 24 * 11)
        .unwrap_err();
    assert!(expired.only_by_time(), "{expired}");
}
