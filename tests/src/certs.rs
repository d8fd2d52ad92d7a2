//! Authorities and certificates of a test cluster: an old authority, a new one, and a stranger's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use confman_tls::throwaway::{Authority, Order};
use confman_tls::{NamedFile, NodeFiles};

/// Long enough for any test.
const DAYS: u32 = 30;

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// The authority that the cluster is born with.
    Old,
    /// The one that takes its place.
    New,
    /// One that nobody trusts.
    Stranger,
}

/// The authorities, and the directory in which every node has its files.
pub struct Certs {
    dir: PathBuf,
    old: Authority,
    new: Authority,
    stranger: Authority,
}

impl Certs {
    /// New authorities; files go under `dir`.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let authority = |name| Authority::new(name, SystemTime::now(), DAYS);
        std::fs::create_dir_all(dir)?;
        let certs = Self {
            dir: dir.to_owned(),
            old: authority("old authority")?,
            new: authority("new authority")?,
            stranger: authority("stranger")?,
        };
        // Clients outlive every change.
        let both = certs.bundle(&[Signer::Old, Signer::New]);
        std::fs::write(certs.client_ca(), both)?;
        Ok(certs)
    }

    fn authority(&self, signer: Signer) -> &Authority {
        match signer {
            Signer::Old => &self.old,
            Signer::New => &self.new,
            Signer::Stranger => &self.stranger,
        }
    }

    fn bundle(&self, signers: &[Signer]) -> String {
        signers.iter().map(|s| self.authority(*s).pem()).collect()
    }

    /// What clients trust: the old and the new authority.
    #[must_use]
    pub fn client_ca(&self) -> PathBuf {
        self.dir.join("client-ca.pem")
    }

    /// A file of a node: `cert.pem`, `key.pem` or `ca.pem`.
    #[must_use]
    pub fn file(&self, node: &str, name: &str) -> PathBuf {
        self.dir.join(node).join(name)
    }

    /// Lets a node trust these.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn trust(&self, node: &str, signers: &[Signer]) -> anyhow::Result<()> {
        self.put(node, "ca.pem", &self.bundle(signers))
    }

    /// Gives a node a new certificate and key for these names.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn issue(&self, node: &str, signer: Signer, names: &[&str]) -> anyhow::Result<()> {
        let order = Order::node(names, SystemTime::now(), DAYS);
        let issued = self.authority(signer).issue(&order)?;
        self.put(node, "key.pem", &issued.key)?;
        self.put(node, "cert.pem", &issued.cert)
    }

    fn put(&self, node: &str, name: &str, text: &str) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(node, name);
        std::fs::create_dir_all(self.dir.join(node))?;
        // As an operator should: a file appears whole.
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }

    /// What a node needs to know.
    #[must_use]
    pub fn env(&self, node: &str) -> BTreeMap<String, String> {
        let file = |name| self.file(node, name).display().to_string();
        [
            ("CONFMAN_TLS_CERT_FILE", file("cert.pem")),
            ("CONFMAN_TLS_KEY_FILE", file("key.pem")),
            ("CONFMAN_TLS_CA_FILE", file("ca.pem")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// TLS for a server of the test's own, as a node of that name would speak it.
    ///
    /// # Errors
    /// The files of that name will not do.
    pub fn server(&self, node: &str) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        self.server_of(node, false)
    }

    /// The same, for a server that lets in only who shows a certificate of an authority that `node` trusts.
    ///
    /// # Errors
    /// The files of that name will not do.
    pub fn demanding_server(&self, node: &str) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        self.server_of(node, true)
    }

    fn server_of(&self, node: &str, demanding: bool) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let file = |name| NamedFile::new("test", self.file(node, name));
        let files = NodeFiles {
            cert: file("cert.pem"),
            key: file("key.pem"),
            ca: demanding.then(|| file("ca.pem")),
            api_client_certs: demanding,
            peer_host: None,
            api_host: None,
        };
        Ok(files.read()?.judge(&files, SystemTime::now())?.api)
    }
}
