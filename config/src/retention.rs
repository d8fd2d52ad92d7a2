//! What a tool reads that judges which snapshots stay, as the nodes of the same environment would.

use std::ffi::OsString;
use std::time::Duration;

use crate::catalog as declared;
use crate::effective::Source;
use crate::errors::SettingsErrors;
use crate::machine::{Machine, ThisMachine};
use crate::reader::Reader;

/// What must stay, and for how long what may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Verified generations that are always kept; at least 1.
    pub count: usize,
    /// Whether somebody has said that count, or it is the default.
    pub count_is_default: bool,
    /// Time between marking an old snapshot and deleting it.
    pub grace: Duration,
}

impl RetentionSettings {
    /// Reads and checks them. Other settings may be there too; only their names are checked.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_env(
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsErrors> {
        Self::resolve(env, &ThisMachine)
    }

    fn resolve(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        machine: &dyn Machine,
    ) -> Result<Self, SettingsErrors> {
        let mut reader = Reader::new(env, machine);
        let count = reader.read(&declared::SNAPSHOT_RETENTION_COUNT);
        let grace = reader.read(&declared::SNAPSHOT_DELETE_GRACE_SECS);
        let effective = reader.finish()?;
        // What is missing has left an error, so that `finish` has returned it.
        let (Some(count), Some(grace)) = (count, grace) else {
            return Err(SettingsErrors(Vec::new()));
        };
        let count_is_default = effective.iter().any(|setting| {
            setting.name == declared::SNAPSHOT_RETENTION_COUNT.name
                && setting.source == Source::Default
        });
        Ok(Self {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            count_is_default,
            grace,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(env: &[(&str, &str)]) -> Result<RetentionSettings, String> {
        let env = env
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        RetentionSettings::from_env(env).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_count_is_that_of_a_node_and_says_whether_anybody_chose_it() {
        let default = settings(&[]).unwrap();
        assert_eq!((default.count, default.count_is_default), (3, true));
        assert_eq!(default.grace, Duration::from_secs(30));
        let chosen = settings(&[
            ("CONFMAN_SNAPSHOT_RETENTION_COUNT", "3"),
            ("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "0"),
        ])
        .unwrap();
        assert_eq!((chosen.count, chosen.count_is_default), (3, false));
        assert_eq!(chosen.grace, Duration::ZERO);
    }

    #[test]
    fn i20_a_wrong_count_is_refused() {
        assert!(settings(&[("CONFMAN_SNAPSHOT_RETENTION_COUNT", "0")]).is_err());
    }
}
