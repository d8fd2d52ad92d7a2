//! The object store alone, without a cluster.
//!
//! - [`StoreArgs`]: which store, from options and environment, for every command that asks one.
//! - [`reader`]: the store for those who only read, by type.
//! - [`errors`]: the store's errors as ends of a command.
//! - [`pick`]: which snapshot is meant; [`records`]: single records out of it; [`facts`]: what its group had recorded.
//! - [`values`]: entries and changes as the API shows them.
//! - [`snapshot`], [`retention`], [`get`], [`export`], [`probe`]: the commands.
//!
//! Promises: nothing here needs a node; a command that reads holds a [`reader::StoreReader`], which has no way to
//! write (I16); what deletes takes a [`crate::consent::Consent`].
//!
//! Does not: know what a restore is (`crate::restore`).

pub mod args;
pub mod errors;
pub mod export;
pub mod facts;
pub mod get;
pub mod pick;
pub mod probe;
pub mod reader;
pub mod records;
pub mod retention;
pub mod snapshot;
pub mod values;

pub use args::StoreArgs;

use confman_cli::failure::Failure;
use confman_config::RetentionSettings;

use crate::codes;
use crate::codes::Code;

/// What the nodes of this environment would keep, and for how long what may go.
fn settings_of_nodes() -> Result<RetentionSettings, Failure> {
    RetentionSettings::from_env(std::env::vars_os()).map_err(|errors| {
        codes::usage(
            "STORE_CONFIGURATION",
            errors.to_string().trim_end().replace('\n', "; "),
        )
    })
}

/// Now, by this machine's clock, in microseconds since 1970 UTC.
fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[
    Code {
        name: "STORE_UNREACHABLE",
        meaning: "The object store did not answer, or not in time.",
        remedy: "Check the endpoint (AWS_ENDPOINT_URL), the network and the store itself; `drtool store probe` says more.",
    },
    Code {
        name: "STORE_CREDENTIALS",
        meaning: "The object store refuses who we are or what we may do.",
        remedy: "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what that key may do: list and get to read, put and delete to write.",
    },
    Code {
        name: "STORE_CONFIGURATION",
        meaning: "The store's URL or one of its variables is wrong, or its bucket is not there.",
        remedy: "Correct --store or CONFMAN_OBJECT_STORE_URL, and the AWS_ variables.",
    },
    Code {
        name: "STORE_NOT_FOUND",
        meaning: "The store has no object, or no folder, of that name.",
        remedy: "`drtool snapshot list` shows what there is; check that the URL names the cluster's bucket and prefix.",
    },
    Code {
        name: "STORE_CONFLICT",
        meaning: "Another object lies where this one should go; nothing was overwritten.",
        remedy: "Look at the object that is there before anything else.",
    },
    Code {
        name: "SNAPSHOT_DAMAGED",
        meaning: "A snapshot object is there and its bytes are not what was written, or a part of it is missing.",
        remedy: "Use the next older snapshot (`drtool snapshot list`), keep the damaged object as evidence, and have the cluster make a new one.",
    },
    Code {
        name: "SNAPSHOT_AMBIGUOUS",
        meaning: "What was given fits more than one snapshot.",
        remedy: "Name the group with --group, or give more of the id; `drtool snapshot list` shows them.",
    },
    Code {
        name: "SNAPSHOT_MISSING",
        meaning: "The group had recorded a snapshot, it should still be kept, and the store does not have it.",
        remedy: "Look who deletes in this bucket (its lifecycle rules, other tools). If the cluster keeps fewer generations than the command assumes, say how many with --keep.",
    },
    Code {
        name: "SNAPSHOT_NEWER",
        meaning: "A snapshot was written in a format that this program does not know yet.",
        remedy: "Use the version of drtool that belongs to the cluster, or a newer one.",
    },
    Code {
        name: "SNAPSHOT_NOT_RECORDED",
        meaning: "An object is a whole snapshot, and its group had not recorded it: a builder died between upload and record, or it is of a life of the cluster that was left.",
        remedy: "Nothing: the cluster collects it when it is old. Pin it if you want to keep it.",
    },
    Code {
        name: "SNAPSHOT_REPLACED",
        meaning: "The bytes of an object are whole, but they are not those that the group recorded under this name.",
        remedy: "Keep the object as evidence, look who else writes to this bucket, and use the next older snapshot.",
    },
    Code {
        name: "ENTRY_NOT_FOUND",
        meaning: "The snapshot holds no entry of that name: it had not been written yet, or had been deleted.",
        remedy: "Try an older or a newer snapshot (`drtool snapshot list`), or compare two with `drtool snapshot diff`.",
    },
    Code {
        name: "RETENTION_COUNT_UNKNOWN",
        meaning: "Snapshots would be deleted, and nobody has said how many generations the cluster keeps; the bucket does not say it.",
        remedy: "Say what CONFMAN_SNAPSHOT_RETENTION_COUNT is on the cluster's nodes, with --keep or with that variable.",
    },
];
