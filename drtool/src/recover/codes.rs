//! The refusals and findings of this room.

use crate::codes::Code;

/// Each with what it means and what to do.
pub const CODES: &[Code] = &[
    Code {
        name: "RECOVER_FILE",
        meaning: "A file is no collection or plan, is of a newer version, is too large, or is there already.",
        remedy: "Name the right file; `drtool recover collect` and `drtool recover plan` make them, --force replaces one.",
    },
    Code {
        name: "RECOVER_DIRECTORY",
        meaning: "There is no data directory of a node at that path, or it cannot be read.",
        remedy: "Name the directory that CONFMAN_DATA_DIR named, on the machine where it is, as a user who may read it.",
    },
    Code {
        name: "RECOVER_NO_DIRECTORY",
        meaning: "Nothing was collected that a cluster could go on from.",
        remedy: "Collect the data directories that are left. When there is none, restore from the store: `drtool restore plan`.",
    },
    Code {
        name: "RECOVER_UNDER_WAY",
        meaning: "A recovery was begun in the directory, or a restore into it, and has not ended.",
        remedy: "Run `drtool recover apply` with the same plan again, or `drtool recover undo`; a restore: `drtool restore local` again.",
    },
    Code {
        name: "RECOVER_FOREIGN",
        meaning: "A directory or the store belongs to another cluster, to another life of it, or to another recovery.",
        remedy: "Collect and plan with what belongs together; a directory of a life that is over has nothing to give.",
    },
    Code {
        name: "RECOVER_SAME_NODE",
        meaning: "Two directories are of one node: one is a copy, and may be older.",
        remedy: "Collect again with the directory that the node ran on last.",
    },
    Code {
        name: "RECOVER_QUORUM_ALIVE",
        meaning: "A node says that there is a leader: a quorum of the cluster lives, and a recovery would fight it.",
        remedy: "Do not recover. Bring the missing nodes back, with their directories or empty: they rejoin by themselves.",
    },
    Code {
        name: "RECOVER_TLS",
        meaning: "Something answers at the address of a node, and no TLS handshake with it succeeds, or it speaks TLS where the URL says http: it may be a living node, which cannot be asked.",
        remedy: "Set CONFMAN_TLS_CLIENT_CA_FILE to the cluster's authority, and CONFMAN_TLS_CLIENT_CERT_FILE and CONFMAN_TLS_CLIENT_KEY_FILE where nodes want to see a certificate. Where they speak TLS, name them with https://. If the address is somebody else's by now: --not-ours URL.",
    },
    Code {
        name: "RECOVER_QUORUM_POSSIBLE",
        meaning: "The nodes that are left are a quorum: Raft itself can go on without losing anything.",
        remedy: "Start them with their directories and wait for a leader.",
    },
    Code {
        name: "RECOVER_RUNNING",
        meaning: "A node whose data counts runs, so that what was read of it may change.",
        remedy: "Stop it and collect its directory again.",
    },
    Code {
        name: "RECOVER_TOO_FEW",
        meaning: "A member's data is not at hand. It may hold entries that nobody else has.",
        remedy: "Collect its directory. Only when it is lost for good: --lost NAME.",
    },
    Code {
        name: "RECOVER_NOT_LOST",
        meaning: "A member is given up whose data is here.",
        remedy: "Leave --lost out for it.",
    },
    Code {
        name: "RECOVER_UNKNOWN_NAME",
        meaning: "No member is called so.",
        remedy: "Use the names that the refusal lists.",
    },
    Code {
        name: "RECOVER_SURVIVOR",
        meaning: "The node cannot begin the new life: its directory is not there, damaged, fenced, or of a node that never finished joining.",
        remedy: "Name another survivor, or none; when no directory can be used, restore from the store: `drtool restore plan`.",
    },
    Code {
        name: "RECOVER_DIVERGED",
        meaning: "Two directories contradict each other in a way that Raft never writes: one is damaged or an older copy.",
        remedy: "Compare them with `drtool diff`, collect again without the wrong one and give it up with --lost NAME.",
    },
    Code {
        name: "RECOVER_NEWER_LIFE",
        meaning: "A newer life of the cluster, or another recovery of the same number, is known already.",
        remedy: "Join that life: start the node, it says how. If that recovery was the mistake, undo it first.",
    },
    Code {
        name: "RECOVER_BEHIND",
        meaning: "Entries of a group are proven to be committed that no collected directory has: the store has a newer snapshot, or a node that was not collected told of them. The store has snapshots and no log, so nothing there can follow on the end of a directory.",
        remedy: "If the node that has them can be had, collect it too. Else choose: every group from its snapshot (`drtool restore plan`), or the directories without those entries (--accept-data-loss GROUP). The refusal says what each of the two gives up.",
    },
    Code {
        name: "RECOVER_ALTERED",
        meaning: "The plan was changed after it was made: its digest does not fit.",
        remedy: "Make another plan with the options that you want.",
    },
    Code {
        name: "RECOVER_STALE",
        meaning: "The directory is not as it was when it was collected: something has run on it since.",
        remedy: "Collect and plan again.",
    },
    Code {
        name: "RECOVER_NOT_NAMED",
        meaning: "The plan says nothing of this directory, or was never applied to it.",
        remedy: "Name the right directory and the right plan; the refusal says whose the plan is.",
    },
    Code {
        name: "RECOVER_SOURCE",
        meaning: "The survivor takes a group from another node's directory, and that is not at hand or has changed.",
        remedy: "Copy that directory to the survivor's machine and name it: --from NAME=DIR.",
    },
    Code {
        name: "RECOVER_SPACE",
        meaning: "The disk has no room for the repaired copy, which is built beside the old contents. Nothing was done by this run.",
        remedy: "Make room there; or copy the whole directory to a larger disk, name that one in CONFMAN_DATA_DIR, and apply the plan to it. What an earlier run began is taken back with `drtool recover undo`.",
    },
    Code {
        name: "RECOVER_SPENT",
        meaning: "The new life has acknowledged a write or taken in another node: taking it back would lose that.",
        remedy: "Keep the new life; read what the old contents under aside/ have with `drtool diff` and `drtool inspect`.",
    },
    Code {
        name: "RECOVER_CLAIM_STANDS",
        meaning: "The directory was put back, but the store still says that the new incarnation is there: nodes that see it fence themselves.",
        remedy: "Run the same undo again when the store answers.",
    },
    Code {
        name: "RECOVER_NOT_CLAIMED",
        meaning: "The directory is repaired, but the store that was named did not take the claim of the new incarnation: another operator is not kept from a life of the same number, and nodes of the older life do not learn of this one there.",
        remedy: "Run the same apply again when the store answers; it only claims then. Without a store on purpose: --no-store.",
    },
    Code {
        name: "RECOVER_UNVERIFIED",
        meaning: "The living cluster is not, or not yet, what the plan says.",
        remedy: "Each finding names the node and what to do; run `drtool recover verify` again afterwards.",
    },
];
