//! What a client of a cluster reads.

use std::ffi::OsString;

use secrecy::SecretString;

use crate::catalog as declared;
use crate::effective::EffectiveSetting;
use crate::errors::SettingsErrors;
use crate::machine::{Machine, ThisMachine};
use crate::reader::Reader;
use crate::tls::ClientTlsSettings;

/// Where the cluster is, and the key to it.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// URLs of nodes, without a trailing slash; never empty.
    pub endpoints: Vec<String>,
    /// The API key.
    pub api_key: Option<SecretString>,
    /// Whom it trusts with https, and what it shows.
    pub tls: ClientTlsSettings,
    effective: Vec<EffectiveSetting>,
}

impl ClientSettings {
    /// Reads and checks a client's settings. A node's settings may be there too; only their names are
    /// checked.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_env(
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsErrors> {
        Self::resolve(env, &ThisMachine)
    }

    /// [`ClientSettings::from_env`] for a machine given by argument.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn resolve(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        machine: &dyn Machine,
    ) -> Result<Self, SettingsErrors> {
        let mut reader = Reader::new(env, machine);
        let endpoints = reader.read(&declared::ENDPOINTS);
        let api_key = reader.read(&declared::API_KEY);
        let tls = ClientTlsSettings::read(&mut reader);
        let effective = reader.finish()?;
        // Endpoints that are missing have left an error, so that `finish` has returned it.
        let endpoints = endpoints.ok_or(SettingsErrors(Vec::new()))?;
        Ok(Self {
            endpoints,
            api_key,
            tls,
            effective,
        })
    }

    /// Each setting as it is in force; secrets are not shown.
    #[must_use]
    pub fn effective(&self) -> Vec<EffectiveSetting> {
        self.effective.clone()
    }
}
