//! Who may do what: roles, what an endpoint asks for, and where names of keys come from.
//!
//! Promises: one rule ([`Access::admits`]) that every endpoint goes through; with keys configured nothing but the
//! open endpoints answers without one.
//!
//! Does not: read key files or compare secrets; that is the [`Keyring`]'s.

/// What a key's holder may do. Each role may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads configuration, audit and status.
    Viewer,
    /// Also writes configuration.
    Editor,
    /// As editor, and publishes once there is publishing.
    Publisher,
    /// Also operates the cluster.
    Admin,
}

impl Role {
    /// Every role, the one that may do most first.
    pub(crate) const ALL: [Self; 4] = [Self::Admin, Self::Publisher, Self::Editor, Self::Viewer];

    /// The role's word, as keys files and answers have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

/// What an endpoint asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: no key is needed, and nothing of the configuration is told.
    Open,
    /// Any role.
    Read,
    /// Editor and above.
    Write,
    /// Admin.
    Operate,
}

impl Access {
    /// Whether `role` is enough.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Open | Self::Read => true,
            Self::Write => role >= Role::Editor,
            Self::Operate => role >= Role::Admin,
        }
    }

    /// The least role that is enough, in words.
    pub(crate) fn least(self) -> &'static str {
        match self {
            Self::Open | Self::Read => "viewer",
            Self::Write => "editor",
            Self::Operate => "admin",
        }
    }
}

/// The holder of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's name: the actor in the audit history.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Identity {
    /// Who calls when no keys are configured (the listener is on loopback then).
    pub fn anonymous() -> Self {
        Self {
            name: "anonymous".to_owned(),
            role: Role::Admin,
        }
    }
}

/// The API keys that the node knows.
pub trait Keyring: Send + Sync {
    /// Whether there are no keys, so that everybody is [`Identity::anonymous`].
    fn is_open(&self) -> bool;
    /// The holder of `key`, found in time that does not depend on the key.
    fn authenticate(&self, key: &str) -> Option<Identity>;
}

/// No keys file: everybody may do everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeys;

impl Keyring for NoKeys {
    fn is_open(&self) -> bool {
        true
    }

    fn authenticate(&self, _key: &str) -> Option<Identity> {
        None
    }
}
