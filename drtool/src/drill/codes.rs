//! The refusals and findings of this room.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[
    Code {
        name: "DRILL_HASH_DIFFERS",
        meaning: "The state that came out of the store is not the one that was to come out: its hash differs from the snapshot's, or from the one that a node of the living cluster had at that position.",
        remedy: "Keep the snapshot as evidence, compare the nodes with `drtool status`, and have the cluster make a new snapshot. Do not restore from this one.",
    },
    Code {
        name: "DRILL_VALUE_DIFFERS",
        meaning: "A value, or a count, that the booted copy gave over HTTP is not the one in the snapshot.",
        remedy: "Look at the copy (`drtool drill --keep`) and report it: the store is whole, the program that read it is not.",
    },
    Code {
        name: "DRILL_NODE_FAILED",
        meaning: "A node could not be booted on the restored copy, or did not become ready in time.",
        remedy: "The message has the node's own words. Check that `confman` and `drtool` are of one version; `drtool drill --keep` leaves the copy and the node's log.",
    },
    Code {
        name: "DRILL_SNAPSHOT_PASSED_OVER",
        meaning: "The newest snapshot of a group is no good. The drill, as a restore would, took an older one: so much more is lost.",
        remedy: "Keep the damaged object as evidence (`drtool runbook damaged-snapshot`), and have the cluster make a new one: `drtool snapshot create`.",
    },
    Code {
        name: "DRILL_NOT_KEPT",
        meaning: "The drill was carried out, and its report could not be put into the store.",
        remedy: "Mend the store, or give the key the right to put objects under reports/, and drill again.",
    },
    Code {
        name: "DRILL_CALLED_OFF",
        meaning: "The drill was stopped before its end. What it had made is gone; it has no report.",
        remedy: "Run it again.",
    },
    Code {
        name: "DRILL_NEVER",
        meaning: "The store has no report of a drill that passed: nobody has tried whether this cluster can be restored.",
        remedy: "`drtool drill`, on a machine with room for a copy; `drtool runbook drill` says how.",
    },
    Code {
        name: "DRILL_OLD",
        meaning: "The last drill that passed is more than 31 days old.",
        remedy: "`drtool drill`; a timer that runs it every week is better.",
    },
    Code {
        name: "DRILL_FAILED",
        meaning: "The last drill did not pass: what the store holds cannot be restored as it should.",
        remedy: "Read its report under reports/drill/ in the store, mend what it found, and drill again.",
    },
    Code {
        name: "PROGRAM_NOT_FOUND",
        meaning: "The node's program `confman` is neither beside this one nor in PATH.",
        remedy: "Install it there, or name it with --confman.",
    },
];
