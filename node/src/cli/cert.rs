//! `confman cert`: certificates for clusters that nobody will miss, in files. No server is asked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use confman_tls::throwaway::{Authority, MakeError, Order};
use confman_tls::{NamedFile, NodeFiles};

use super::connect::OutputArgs;
use super::failure::Failure;
use super::output;
use crate::dev::layout::write_private;

/// Longer than a cluster of the kind lives, and short enough that nobody leans on it.
pub(crate) const DAYS: u32 = 365;
const AUTHORITY: &str = "ca.pem";

/// Make certificates for trying TLS out; for anything else, bring your own
#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an authority, DIR/ca.pem, and for each node DIR/NAME.pem and DIR/NAME-key.pem, for a year. The authority's key is thrown
    /// away. What is there stays, so that it can be run at every start
    Init {
        /// A directory that the nodes can read and nobody else; it is made where it is missing
        dir: PathBuf,
        /// A node, and the hosts by which others know it: DNS names and IP addresses
        #[arg(value_name = "NAME=HOST,...", required = true)]
        nodes: Vec<Bearer>,
        /// Make all of it anew. Nodes that run take the new files within five seconds
        #[arg(long)]
        anew: bool,
        #[command(flatten)]
        out: OutputArgs,
    },
}

/// Who gets a certificate, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// Names its files.
    pub(crate) name: String,
    /// Subject alternative names.
    pub(crate) hosts: Vec<String>,
}

impl FromStr for Bearer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, hosts) = text
            .split_once('=')
            .ok_or("it looks like node1=node1.example,10.0.0.1")?;
        // It becomes the name of a file.
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_part) {
            return Err(format!(
                "the name {name:?} is not of letters, digits, `.`, `_` and `-`, the first a letter or digit"
            ));
        }
        let mut bearer = Self {
            name: name.to_owned(),
            hosts: Vec::new(),
        };
        for host in hosts.split(',').map(|host| host.trim_matches(['[', ']'])) {
            if host.is_empty() {
                return Err("a host is empty".to_owned());
            }
            if !bearer.hosts.iter().any(|known| known == host) {
                bearer.hosts.push(host.to_owned());
            }
        }
        Ok(bearer)
    }
}

/// It did not work out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// A host is none.
    #[error("{name}: {error}")]
    Make { name: String, error: MakeError },
    /// A file cannot be written.
    #[error("{0:#}")]
    Write(anyhow::Error),
}

/// Makes a new authority and a certificate for each, writes them, and forgets the authority's key. The authority is written last: where it
/// is, all of them are.
pub(crate) fn make(dir: &Path, name: &str, bearers: &[Bearer]) -> Result<(), CertError> {
    let now = SystemTime::now();
    let failed = |name: &str, error| CertError::Make {
        name: name.to_owned(),
        error,
    };
    let authority = Authority::new(name, now, DAYS).map_err(|e| failed(name, e))?;
    // First of all the old one goes: killed from here on, the next run finds none and begins again. Nodes that run keep what they have.
    remove(&dir.join(AUTHORITY)).map_err(CertError::Write)?;
    for bearer in bearers {
        let hosts: Vec<&str> = bearer.hosts.iter().map(String::as_str).collect();
        let issued = authority
            .issue(&Order::node(&hosts, now, DAYS))
            .map_err(|e| failed(&bearer.name, e))?;
        let [cert, key] = files(dir, &bearer.name);
        write_private(&key, &issued.key).map_err(CertError::Write)?;
        write_private(&cert, &issued.cert).map_err(CertError::Write)?;
    }
    write_private(&dir.join(AUTHORITY), &authority.pem()).map_err(CertError::Write)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(format!("remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

fn files(dir: &Path, name: &str) -> [PathBuf; 2] {
    [".pem", "-key.pem"].map(|ending| dir.join(format!("{name}{ending}")))
}

pub(crate) fn run(args: CertArgs) -> Result<ExitCode, Failure> {
    let Action::Init {
        dir,
        nodes,
        anew,
        out,
    } = args.action;
    let made = init(&dir, &nodes, anew)?;
    if out.json {
        let each = nodes.iter().map(|node| {
            let [cert, key] = files(&dir, &node.name);
            serde_json::json!({ "name": node.name, "hosts": node.hosts, "certFile": cert, "keyFile": key })
        });
        output::json(&serde_json::json!({
            "made": made, "caFile": dir.join(AUTHORITY), "items": each.collect::<Vec<_>>(),
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what is not there; says whether it was made now.
fn init(dir: &Path, nodes: &[Bearer], anew: bool) -> Result<bool, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut taken = vec![dir.join(AUTHORITY)];
    for node in nodes {
        let own = files(dir, &node.name);
        if let Some(file) = own.iter().find(|file| taken.contains(file)) {
            return Err(Failure::usage(format!(
                "{} would be written twice: give {} another name",
                file.display(),
                node.name
            )));
        }
        taken.extend(own);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::local("make", dir, &e))?;
    let authority = dir.join(AUTHORITY);
    if authority.exists() && !anew {
        let lacks = |node: &&Bearer| files(dir, &node.name).iter().any(|file| !file.exists());
        if let Some(node) = nodes.iter().find(lacks) {
            return Err(Failure::usage(format!(
                "{} is there without a certificate of {}, and its key was thrown away",
                authority.display(),
                node.name
            ))
            .with_hint("--anew makes all of them anew"));
        }
        for node in nodes {
            refuse_unfit(dir, node)?;
        }
        eprintln!("kept {}", authority.display());
        return Ok(false);
    }
    make(dir, "confman cert init", nodes).map_err(|e| Failure::usage(e.to_string()))?;
    eprintln!(
        "made {} and a certificate for each of {} nodes; they count for {DAYS} days",
        authority.display(),
        nodes.len()
    );
    Ok(true)
}

/// Refuses a certificate that no handshake would take, or that lacks a host: kept, it would only fail later.
fn refuse_unfit(dir: &Path, node: &Bearer) -> Result<(), Failure> {
    let [cert, key] = files(dir, &node.name);
    for host in &node.hosts {
        let kept = NodeFiles {
            cert: NamedFile::new("certificate", &cert),
            key: NamedFile::new("key", &key),
            ca: Some(NamedFile::new("authority", dir.join(AUTHORITY))),
            api_client_certs: false,
            peer_host: Some(host.clone()),
            api_host: None,
        };
        kept.read()
            .and_then(|files| files.judge(&kept, SystemTime::now()))
            .map_err(|errors| {
                Failure::usage(errors.on_one_line()).with_hint("--anew makes all of them anew")
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearers(of: &[&str]) -> Vec<Bearer> {
        of.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_is_a_name_and_its_hosts() {
        let node: Bearer = "node1=node1,localhost,10.0.0.1,[::1],localhost"
            .parse()
            .unwrap();
        assert_eq!(node.name, "node1");
        assert_eq!(node.hosts, ["node1", "localhost", "10.0.0.1", "::1"]);
        for wrong in [
            "node1",
            "=a",
            "../node1=a",
            "a/b=a",
            ".=a",
            "node1=",
            "node1=a,,b",
        ] {
            assert!(wrong.parse::<Bearer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_there_stays_until_all_of_it_is_made_anew() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("keys/tls");
        let two = bearers(&["node1=node1,::1", "node2=node2"]);
        init(&dir, &two, false).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let before = [read("ca.pem"), read("node1.pem"), read("node2-key.pem")];
        let mode = std::fs::metadata(dir.join("node1-key.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        init(&dir, &two, false).unwrap();
        assert_eq!(
            before,
            [read("ca.pem"), read("node1.pem"), read("node2-key.pem")]
        );
        // Nobody can sign for a third one.
        let three = bearers(&["node1=node1", "node2=node2", "node3=node3"]);
        let failure = format!("{:?}", init(&dir, &three, false).unwrap_err());
        assert!(
            failure.contains("node3") && failure.contains("--anew"),
            "{failure}"
        );
        init(&dir, &three, true).unwrap();
        assert_ne!(before[0], read("ca.pem"));
        assert!(read("node3.pem").contains("BEGIN CERTIFICATE"));
        assert!(
            !read("ca.pem").contains("PRIVATE"),
            "nobody keeps the authority's key"
        );
        // As a run that was killed half way leaves it.
        std::fs::remove_file(dir.join("ca.pem")).unwrap();
        let half = read("node1.pem");
        init(&dir, &three, false).unwrap();
        assert_ne!(half, read("node1.pem"));
    }

    #[test]
    fn what_would_fail_later_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let refused =
            |nodes: &[&str]| format!("{:?}", init(dir, &bearers(nodes), false).unwrap_err());
        init(
            dir,
            &bearers(&["node1=node1,10.0.0.1", "node2=node2"]),
            false,
        )
        .unwrap();
        init(dir, &bearers(&["node1=10.0.0.1"]), false).unwrap();
        // A host that came later.
        let told = refused(&["node1=node1,203.0.113.7"]);
        assert!(
            told.contains("203.0.113.7") && told.contains("--anew"),
            "{told}"
        );
        // Of another authority, as a killed `--anew` of an earlier version left it.
        let other = tempfile::tempdir().unwrap();
        init(other.path(), &bearers(&["node1=node1"]), false).unwrap();
        for file in ["node1.pem", "node1-key.pem"] {
            std::fs::copy(other.path().join(file), dir.join(file)).unwrap();
        }
        let told = refused(&["node1=node1"]);
        assert!(told.contains("--anew"), "{told}");
        // Two that would write one file.
        for twice in [["ca=a", "b=b"], ["a=a", "a=b"], ["a=a", "a-key=b"]] {
            let told = refused(&twice);
            assert!(told.contains("written twice"), "{told}");
        }
    }
}
