//! The kinds of value a setting can have: what is expected, how it is read, how it is shown.
//!
//! A kind never echoes the text it refuses: the caller does, because only the caller knows whether
//! the setting is a secret.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::{Host, Url};

use crate::settings::Peer;

/// A value, or why the text is not one where there is more to say than what was expected.
pub type Parsed<T> = Result<T, Option<String>>;

/// What a setting's text must be.
pub trait Kind: Sync {
    /// The typed value.
    type Value;
    /// What is expected, to follow "expected": `a whole number from 1 to 64`.
    fn expected(&self) -> String;
    /// Reads the text.
    ///
    /// # Errors
    /// The reason, if it says more than [`Kind::expected`]. It never contains the text itself.
    fn parse(&self, text: &str) -> Parsed<Self::Value>;
    /// The value as text that [`Kind::parse`] reads again (secrets excepted).
    fn show(&self, value: &Self::Value) -> String;
}

/// Shown in place of a secret.
pub(crate) const NOT_SHOWN: &str = "(set, not shown)";

/// The longest node name: `HOST_NAME_MAX` of Linux.
const NAME_CHARS_MAX: usize = 64;
/// More peers than this form no sensible Raft group.
const PEERS_MAX: usize = 64;
/// More endpoints than this are no sensible list.
const ENDPOINTS_MAX: usize = 64;
/// The longest token or key.
const SECRET_CHARS_MAX: usize = 1024;

/// A node name.
pub struct Name;

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= NAME_CHARS_MAX
        && chars
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl Kind for Name {
    type Value = String;

    fn expected(&self) -> String {
        format!(
            "1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` or `-`, the first a letter or digit"
        )
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        if is_name(text) {
            Ok(text.to_owned())
        } else {
            Err(None)
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// A file or directory; relative ones are relative to the working directory.
pub struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<PathBuf> {
        Ok(PathBuf::from(text))
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// A socket to listen on.
pub struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "an IP address and a port, such as `127.0.0.1:6100` or `[::]:6100`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<SocketAddr> {
        let address: SocketAddr = text.parse().map_err(|_| None)?;
        if address.port() == 0 {
            return Err(Some("port 0 cannot be told to others".to_owned()));
        }
        Ok(address)
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// `host:port` that others connect to.
pub struct HostPort;

/// Splits and checks `host:port`; the result is normalized (lower case, IPv6 in brackets).
fn host_port(text: &str) -> Parsed<String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| Some("the port is missing".to_owned()))?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = match port.parse() {
        Ok(port) if port > 0 && digits => port,
        _ => return Err(Some("the port is not a number from 1 to 65535".to_owned())),
    };
    let host = Host::parse(host).map_err(|error| Some(error.to_string()))?;
    reachable(&host)?;
    Ok(format!("{host}:{port}"))
}

/// Others cannot connect to `0.0.0.0` or `::`.
fn reachable<S: AsRef<str>>(host: &Host<S>) -> Parsed<()> {
    let address = match host {
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
        Host::Domain(domain) if domain.as_ref().is_empty() => {
            return Err(Some("the host is missing".to_owned()));
        }
        Host::Domain(_) => return Ok(()),
    };
    if address.is_unspecified() {
        return Err(Some(format!("nobody can connect to {address}")));
    }
    Ok(())
}

impl Kind for HostPort {
    type Value = String;

    fn expected(&self) -> String {
        "a host and a port, such as `node1.example:6101`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        host_port(text)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// The URL of a node's API: scheme, host and port only.
pub struct ApiUrl;

/// Checks a URL of a node; the result has no trailing slash.
fn api_url(text: &str) -> Parsed<String> {
    let url = Url::parse(text).map_err(|error| Some(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Some("the scheme is neither http nor https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Some("it carries a user name or a password".to_owned()));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(Some("it goes on after the port".to_owned()));
    }
    let Some(host) = url.host() else {
        return Err(Some("the host is missing".to_owned()));
    };
    reachable(&host)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl Kind for ApiUrl {
    type Value = String;

    fn expected(&self) -> String {
        "a URL of scheme, host and port, such as `http://node1.example:6100`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        api_url(text)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// URLs with commas between.
pub struct Endpoints;

impl Kind for Endpoints {
    type Value = Vec<String>;

    fn expected(&self) -> String {
        "URLs with commas between, such as `http://127.0.0.1:6100,http://127.0.0.1:6200`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<Vec<String>> {
        let mut urls: Vec<String> = Vec::new();
        for (at, part) in text.split(',').enumerate() {
            if at == ENDPOINTS_MAX {
                return Err(Some(format!("there are more than {ENDPOINTS_MAX}")));
            }
            let url = api_url(part.trim()).map_err(|why| numbered("URL", at, why))?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    fn show(&self, value: &Vec<String>) -> String {
        value.join(",")
    }
}

/// Names the item of a list that is wrong, counting from 1.
fn numbered(noun: &str, at: usize, why: Option<String>) -> Option<String> {
    let place = format!("{noun} {}", at + 1);
    Some(why.map_or_else(
        || format!("{place} is not one"),
        |why| format!("{place}: {why}"),
    ))
}

/// The members that form the cluster.
pub struct Peers;

impl Kind for Peers {
    type Value = Vec<Peer>;

    fn expected(&self) -> String {
        "`name=host:port` with commas between, such as `node1=10.0.0.1:6101,node2=10.0.0.2:6101`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<Vec<Peer>> {
        let mut peers: Vec<Peer> = Vec::new();
        for (at, part) in text.split(',').enumerate() {
            if at == PEERS_MAX {
                return Err(Some(format!("there are more than {PEERS_MAX}")));
            }
            let (name, addr) = part
                .trim()
                .split_once('=')
                .ok_or_else(|| numbered("peer", at, Some("the `=` is missing".to_owned())))?;
            if !is_name(name) {
                return Err(numbered("peer", at, Some("the name is not one".to_owned())));
            }
            let addr = host_port(addr).map_err(|why| numbered("peer", at, why))?;
            if let Some(other) = peers
                .iter()
                .find(|peer| peer.name == name || peer.addr == addr)
            {
                let what = if other.name == name {
                    "name"
                } else {
                    "address"
                };
                let why = format!("it has the {what} of `{}`", other.name);
                return Err(numbered("peer", at, Some(why)));
            }
            peers.push(Peer {
                name: name.to_owned(),
                addr,
            });
        }
        Ok(peers)
    }

    fn show(&self, value: &Vec<Peer>) -> String {
        let parts: Vec<String> = value
            .iter()
            .map(|peer| format!("{}={}", peer.name, peer.addr))
            .collect();
        parts.join(",")
    }
}

/// A key or token; it travels in a header, so it is visible ASCII.
pub struct Secret;

impl Kind for Secret {
    type Value = SecretString;

    fn expected(&self) -> String {
        format!("1 to {SECRET_CHARS_MAX} visible ASCII characters without spaces")
    }

    fn parse(&self, text: &str) -> Parsed<SecretString> {
        let fits = !text.is_empty()
            && text.len() <= SECRET_CHARS_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            Ok(SecretString::from(text))
        } else {
            Err(None)
        }
    }

    fn show(&self, _: &SecretString) -> String {
        NOT_SHOWN.to_owned()
    }
}

/// Yes or no.
pub struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<bool> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(None),
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number within bounds, both included.
pub struct Number {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
    /// What is counted, in the plural; empty for a bare number.
    pub unit: &'static str,
}

impl Kind for Number {
    type Value = u64;

    fn expected(&self) -> String {
        let of = if self.unit.is_empty() { "" } else { " of " };
        format!(
            "a whole number{of}{} from {} to {}",
            self.unit, self.min, self.max
        )
    }

    fn parse(&self, text: &str) -> Parsed<u64> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(None);
        }
        match text.parse() {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(None),
        }
    }

    fn show(&self, value: &u64) -> String {
        value.to_string()
    }
}

/// A duration given as a whole number of seconds.
pub struct Seconds {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

impl Seconds {
    fn number(&self) -> Number {
        Number {
            min: self.min,
            max: self.max,
            unit: "seconds",
        }
    }
}

impl Kind for Seconds {
    type Value = Duration;

    fn expected(&self) -> String {
        self.number().expected()
    }

    fn parse(&self, text: &str) -> Parsed<Duration> {
        self.number().parse(text).map(Duration::from_secs)
    }

    fn show(&self, value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// A duration given as a whole number of milliseconds.
pub struct Millis {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

impl Millis {
    fn number(&self) -> Number {
        Number {
            min: self.min,
            max: self.max,
            unit: "milliseconds",
        }
    }
}

impl Kind for Millis {
    type Value = Duration;

    fn expected(&self) -> String {
        self.number().expected()
    }

    fn parse(&self, text: &str) -> Parsed<Duration> {
        self.number().parse(text).map(Duration::from_millis)
    }

    fn show(&self, value: &Duration) -> String {
        value.as_millis().to_string()
    }
}

/// One of a few words.
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Sync> Kind for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn parse(&self, text: &str) -> Parsed<T> {
        self.0
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or(None)
    }

    fn show(&self, value: &T) -> String {
        let word = self
            .0
            .iter()
            .find(|(_, known)| known == value)
            .map(|(word, _)| *word);
        word.unwrap_or_default().to_owned()
    }
}

/// Where objects are kept. `{data}` stands for the data directory and is replaced by the repository.
pub struct StoreUrl;

/// Stands for the data directory in a [`StoreUrl`].
const DATA_DIR_MARK: &str = "{data}";

impl Kind for StoreUrl {
    type Value = String;

    fn expected(&self) -> String {
        "`file:///path`, `file://{data}/path`, `s3://bucket/prefix`, `gs://bucket/prefix`, \
         `az://container/prefix` or `memory://name`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| Some("the scheme is missing".to_owned()))?;
        if !matches!(scheme, "file" | "s3" | "gs" | "az" | "memory") {
            return Err(Some("the scheme is not one of these".to_owned()));
        }
        let rest = match (scheme, rest.strip_prefix(DATA_DIR_MARK)) {
            ("file", Some(below)) => below,
            _ => rest,
        };
        if rest.contains(['{', '}']) {
            let why = "`{data}` stands only right after `file://`";
            return Err(Some(why.to_owned()));
        }
        if rest.contains('@') && scheme != "file" {
            return Err(Some("credentials do not belong in it".to_owned()));
        }
        if rest.contains(['?', '#', '\\', ' ']) {
            return Err(Some("it contains `?`, `#`, `\\` or a space".to_owned()));
        }
        if rest.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(Some(
                "it contains `.` or `..` as a part of the path".to_owned(),
            ));
        }
        if scheme == "file" {
            let absolute = rest.starts_with('/') && rest.len() > 1;
            return if absolute {
                Ok(text.to_owned())
            } else {
                Err(Some("the path is not absolute".to_owned()))
            };
        }
        if rest.split('/').next().is_none_or(str::is_empty) {
            return Err(Some("the bucket is missing".to_owned()));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// What is logged: `info` or `info,openraft=warn`.
///
/// Stricter than the filter that reads it, which takes a misspelt level for the name of a module.
pub struct LogFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind for LogFilter {
    type Value = String;

    fn expected(&self) -> String {
        "`off`, `error`, `warn`, `info`, `debug` or `trace`, alone or as `module=level`, with commas \
         between, such as `info,openraft=warn`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        for (at, part) in text.split(',').enumerate() {
            let (module, level) = match part.split_once('=') {
                Some((module, level)) => (Some(module), level),
                None => (None, part),
            };
            let is_path = |module: &str| {
                module.split("::").all(|segment| {
                    !segment.is_empty()
                        && segment
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                })
            };
            if !LEVELS.contains(&level) || module.is_some_and(|module| !is_path(module)) {
                return Err(numbered("part", at, None));
            }
        }
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}
