//! The object store alone, without a cluster.
//!
//! - [`StoreArgs`]: which store, from options and environment, for every command that asks one.
//! - [`reader`]: the store for those who only read, by type.
//! - [`errors`]: the store's errors as ends of a command.
//!
//! Promises: nothing here needs a node; a command that reads holds a [`reader::StoreReader`], which has no way to
//! write (I16).
//!
//! Does not: know what a restore is (`crate::restore`).

pub mod args;
pub mod errors;
pub mod reader;

pub use args::StoreArgs;

use crate::codes::Code;

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
];
