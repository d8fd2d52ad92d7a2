//! The refusals of this room.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[
    Code {
        name: "CLUSTER_ALIVE",
        meaning: "A node that has data, ready or still opening it, answers where a member should be or at an address of --endpoints or CONFMAN_ENDPOINTS. A restore would begin another life beside it.",
        remedy: "If a quorum lives, nothing needs a restore. If only some nodes live, `drtool recover collect` keeps what they have. To give their data up all the same, stop those nodes first. If CONFMAN_ENDPOINTS names nodes of another cluster, unset it.",
    },
    Code {
        name: "RESTORE_TLS",
        meaning: "Something answers where a member should be, and no TLS handshake with it succeeds, or it speaks TLS where the URL says http: it may be a living node, which cannot be asked.",
        remedy: "Set CONFMAN_TLS_CLIENT_CA_FILE to the cluster's authority, and CONFMAN_TLS_CLIENT_CERT_FILE and CONFMAN_TLS_CLIENT_KEY_FILE where nodes want to see a certificate. Addresses of the time before TLS are named anew with --member and https://. If somebody else has that address by now, and no node of the cluster: --not-ours URL.",
    },
    Code {
        name: "NO_CLUSTER",
        meaning: "The store's prefix has no cluster, or not the one that was named.",
        remedy: "Check that --store names the bucket and prefix that the nodes had in CONFMAN_OBJECT_STORE_URL.",
    },
    Code {
        name: "PREFIX_SHARED",
        meaning: "Several clusters have objects under this prefix, so nobody can say which one is meant.",
        remedy: "Name one with --cluster.",
    },
    Code {
        name: "NO_SNAPSHOT",
        meaning: "A group has no snapshot in the store that is whole and fits what was asked for. Without every group there is no cluster to restore.",
        remedy: "`drtool snapshot list` shows what there is; ask for an earlier time, or look at what was skipped and why.",
    },
    Code {
        name: "PLAN_INVALID",
        meaning: "The file is not a restore plan, was changed after it was made, or is of a newer version of drtool.",
        remedy: "Plans are made by the tool and not edited: run `drtool restore plan` again with the options that you need.",
    },
    Code {
        name: "PLAN_STALE",
        meaning: "The store is not what the plan was made from: another life of the cluster was begun, or somebody has written newer snapshots.",
        remedy: "Find out who did that. Then run `drtool restore plan` again and apply the new plan.",
    },
    Code {
        name: "DIRECTORY_NOT_EMPTY",
        meaning: "The directory that a restore should be made in holds something already. Nothing there was changed.",
        remedy: "Name an empty directory, or one that is not there yet. To use this one, move what it holds elsewhere.",
    },
    Code {
        name: "DIRECTORY_IN_USE",
        meaning: "A process has the directory: a node that runs on it, or another drtool.",
        remedy: "Name another directory, or stop that process and run the command again.",
    },
    Code {
        name: "DIRECTORY_FAILED",
        meaning: "The directory cannot be made, read or written. It stays closed: no node starts on what lies there.",
        remedy: "The message says what the system refused. Mend that and run the same command again; it begins anew.",
    },
    Code {
        name: "DISK_TOO_SMALL",
        meaning: "The disk has no room for what would be restored: twice the size of the records, and some to spare. Nothing was fetched.",
        remedy: "Make room there, or name a directory on a larger disk.",
    },
    Code {
        name: "ORDER_TAKEN",
        meaning: "The restore order that lies in the store for this node was carried out by another data directory, which may have voted.",
        remedy: "Start the node on that directory. If it is gone, order the restore anew with `drtool restore plan` and `drtool restore apply`.",
    },
    Code {
        name: "ORDER_VANISHED",
        meaning: "The restore order was written, and the store does not show it.",
        remedy: "Run the same command again. If it stays so, `drtool store probe` says what the store does.",
    },
    Code {
        name: "NO_MEMBERS",
        meaning: "The snapshot of __meta/0 names no member, so nobody can be asked to restore itself.",
        remedy: "Name the members with --member.",
    },
    Code {
        name: "PLAN_SPENT",
        meaning: "The order of this plan has been carried out, and is never carried out again.",
        remedy: "Nodes that are empty now rejoin the living cluster by themselves. If all of them are gone again, make a new plan.",
    },
];
