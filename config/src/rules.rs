//! What must hold between settings, and what is worth a notice though it is allowed.
//!
//! A rule is checked only on values that are right by themselves: one mistake gives one error.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::ExposeSecret;

use crate::catalog::{self as declared, Setting};
use crate::errors::SettingError;
use crate::kinds::Kind;
use crate::reader::Reader;
use crate::settings::{Peer, Settings};

/// A follower may miss two heartbeats, not three.
const HEARTBEATS_PER_ELECTION: u32 = 3;
/// A shorter cluster token can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

pub(crate) fn together(names: &[&'static str], why: String, hint: String) -> SettingError {
    SettingError::Together {
        names: names.to_vec(),
        why,
        hint,
    }
}

/// Election timeouts must leave room for heartbeats, and must differ, or two followers always stand at once.
pub(crate) fn timing(
    reader: &mut Reader<'_>,
    heartbeat: Option<Duration>,
    min: Option<Duration>,
    max: Option<Duration>,
) {
    let (heartbeat_name, min_name, max_name) = (
        declared::HEARTBEAT_MS.name,
        declared::ELECTION_TIMEOUT_MIN_MS.name,
        declared::ELECTION_TIMEOUT_MAX_MS.name,
    );
    if let (Some(heartbeat), Some(min)) = (heartbeat, min)
        && min < heartbeat * HEARTBEATS_PER_ELECTION
    {
        let (heartbeat, min) = (heartbeat.as_millis(), min.as_millis());
        let heartbeats = u128::from(HEARTBEATS_PER_ELECTION);
        let remedy = match min / heartbeats {
            fitting if fitting >= u128::from(declared::HEARTBEAT_MS.kind.min) => {
                format!("set {heartbeat_name} to at most {fitting}, or ")
            }
            _ => String::new(),
        };
        reader.refuse(together(
            &[heartbeat_name, min_name],
            format!("{min_name} is {min} and {heartbeat_name} is {heartbeat}: expected at least {heartbeats} heartbeats before an election"),
            format!("{remedy}set {min_name} to at least {}", heartbeat * heartbeats),
        ));
    }
    if let (Some(min), Some(max)) = (min, max)
        && min >= max
    {
        let (min, max) = (min.as_millis(), max.as_millis());
        reader.refuse(together(
            &[min_name, max_name],
            format!("{max_name} is {max} and {min_name} is {min}: expected the greatest to be above the least"),
            format!("set {max_name} to about {}", min * 2),
        ));
    }
}

/// Who has no keys or token listens on loopback; and the two listeners are two sockets.
pub(crate) fn listeners(
    reader: &mut Reader<'_>,
    api: Option<SocketAddr>,
    keys: bool,
    peer: Option<SocketAddr>,
    token: bool,
) {
    let (api_name, peer_name) = (declared::API_LISTEN.name, declared::PEER_LISTEN.name);
    if let Some(api) = api
        && !api.ip().is_loopback()
        && !keys
    {
        let keys_name = declared::API_KEYS_FILE.name;
        reader.refuse(together(
            &[api_name, keys_name],
            format!("{api_name} is {api} and {keys_name} is not set: without keys the API listens on loopback only"),
            format!("make a key with `confman key create --name admin --role admin --file keys.json` and set {keys_name}, or listen on 127.0.0.1"),
        ));
    }
    if let Some(peer) = peer
        && !peer.ip().is_loopback()
        && !token
    {
        let token_name = declared::CLUSTER_TOKEN.name;
        reader.refuse(together(
            &[peer_name, token_name],
            format!("{peer_name} is {peer} and {token_name} is not set: without it nodes connect over loopback only"),
            format!("set {token_name} or {token_name}_FILE to the same secret on every node (`openssl rand -hex 32` makes one), or listen on 127.0.0.1"),
        ));
    }
    if let (Some(api), Some(peer)) = (api, peer)
        && api.port() == peer.port()
        && (api.ip() == peer.ip() || api.ip().is_unspecified() || peer.ip().is_unspecified())
    {
        reader.refuse(together(
            &[api_name, peer_name],
            format!("{api_name} is {api} and {peer_name} is {peer}: they need different ports"),
            format!("set {peer_name} to another port"),
        ));
    }
}

/// A node without a name is nobody; the host name may be missing or not be text.
pub(crate) fn has_name(reader: &mut Reader<'_>, node_name: Option<&str>) {
    let name = declared::NODE_NAME.name;
    let tried = reader.is_given(&declared::NODE_NAME) || reader.machine().host_name().is_some();
    if node_name.is_none() && !tried {
        reader.refuse(together(
            &[name],
            format!("{name} is not set, and the machine has no host name to take"),
            format!("set {name}"),
        ));
    }
}

/// The address to derive an advertised one from: nobody can connect to `0.0.0.0`.
pub(crate) fn advertised<K: Kind>(
    reader: &mut Reader<'_>,
    advertise: &Setting<K>,
    listen: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let listen = listen?;
    if !listen.ip().is_unspecified() {
        return Some(listen);
    }
    if !reader.is_given(advertise) {
        let name = advertise.name;
        reader.refuse(together(
            &[name],
            format!(
                "{name} is not set, and others cannot connect to {listen}, where this node listens"
            ),
            format!(
                "set {name} to what others connect to: {}",
                advertise.kind.expected()
            ),
        ));
    }
    None
}

/// A node is one of those that form its cluster.
pub(crate) fn membership(reader: &mut Reader<'_>, node_name: Option<&str>, peers: &[Peer]) {
    let Some(node_name) = node_name else { return };
    if peers.is_empty() || peers.iter().any(|peer| peer.name == node_name) {
        return;
    }
    let (name, peers_name) = (declared::NODE_NAME.name, declared::PEERS.name);
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let origin = if reader.is_given(&declared::NODE_NAME) {
        ""
    } else {
        " (the host name)"
    };
    reader.refuse(together(
        &[name, peers_name],
        format!("{name} is `{node_name}`{origin}, which is not in {peers_name}"),
        format!(
            "set {name} to {}, or add this node to {peers_name}",
            names.join(" or ")
        ),
    ));
}

/// What an operator should know though it is allowed.
pub(crate) fn notices(settings: &Settings) -> Vec<String> {
    let mut notices = Vec::new();
    if settings.api_keys_file.is_none() {
        notices.push(format!(
            "no API keys ({} is not set): the API listens on loopback only ({}) and lets everybody there do everything",
            declared::API_KEYS_FILE.name, settings.api_listen
        ));
    }
    if let Some(token) = &settings.cluster_token
        && token.expose_secret().len() < TOKEN_CHARS_MIN
    {
        notices.push(format!(
            "{} is shorter than {TOKEN_CHARS_MIN} characters and could be guessed",
            declared::CLUSTER_TOKEN.name
        ));
    }
    notices.extend(protection(settings));
    notices
}

/// What the settings mean for the day on which a disk is lost.
fn protection(settings: &Settings) -> Option<String> {
    if !settings.snapshot.enabled {
        return Some(format!(
            "{} is false: no snapshots are made, so the log is never purged and grows until the disk is full, and a lost cluster is lost",
            declared::SNAPSHOT_ENABLED.name
        ));
    }
    let (name, url) = (declared::OBJECT_STORE_URL.name, &settings.object_store_url);
    if !url.starts_with("memory://") && !url.starts_with("file://{data}") {
        return None;
    }
    Some(if settings.peers.len() > 1 {
        format!(
            "{name} is {url}, which other nodes cannot read: a node that loses its disk is fed by the leader, and a lost cluster is lost"
        )
    } else {
        format!(
            "{name} is {url}: the snapshots are lost together with this node's disk; they protect the data when they lie on another one"
        )
    })
}
