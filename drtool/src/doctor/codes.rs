//! The findings of this room that no other room has.

use crate::codes::Code;

/// Each with what it means and what to do.
pub const CODES: &[Code] = &[
    Code {
        name: "SETTING_WRONG",
        meaning: "A CONFMAN_ variable of this machine is unknown, has a wrong value, or does not go with another one. A node refuses to start with it.",
        remedy: "Correct what the finding names; `confman config` shows every setting with its value and source.",
    },
    Code {
        name: "SETTING_RISKY",
        meaning: "The settings of this machine are allowed, and leave a cluster of several nodes less safe than it could be.",
        remedy: "The finding says what; `confman config` shows every setting.",
    },
    Code {
        name: "STORE_VARIABLE_IGNORED",
        meaning: "A variable has the name of the store's family and the store does not know it: misspelt, or of another tool.",
        remedy: "Correct its name; `confman config` lists those that are known.",
    },
    Code {
        name: "API_KEY_REFUSED",
        meaning: "A node does not know the API key that was sent, or none was sent and it wants one.",
        remedy: "Set CONFMAN_API_KEY or CONFMAN_API_KEY_FILE to a key that `confman key list` shows. When only some nodes refuse it, their keys files differ: give all nodes the same one.",
    },
    Code {
        name: "CLUSTER_UNKNOWN",
        meaning: "What a check is about is not known, because no node answered it.",
        remedy: "Mend what keeps the nodes from answering first.",
    },
    Code {
        name: "PEER_UNREACHED",
        meaning: "A node cannot reach another one on its port for nodes, though that one lives: a network that works one way only, a firewall, a cluster token that differs, or an address that is another node's.",
        remedy: "The node's own words say which. Try that address and port from that machine, and compare CONFMAN_CLUSTER_TOKEN and CONFMAN_PEER_ADVERTISE of the two.",
    },
    Code {
        name: "VERSIONS_DIFFER",
        meaning: "The nodes run different versions of the program, as in the midst of a rolling upgrade.",
        remedy: "Finish the upgrade: `drtool runbook rolling-upgrade`.",
    },
    Code {
        name: "TOOL_VERSION_DIFFERS",
        meaning: "drtool is of another version than the nodes; it may not know what they write, or they may not know what it asks.",
        remedy: "Use the drtool that came with the nodes' program.",
    },
    Code {
        name: "CLOCK_OFF",
        meaning: "A clock is more than a second away from the middle of all clocks that could be seen. Raft does not care; times in the audit history, snapshot ages, graces of deletion and the signatures of S3 requests do.",
        remedy: "Have time kept on that machine (chrony, ntpd, systemd-timesyncd), and let it be slewed, not set back.",
    },
    Code {
        name: "DISK_LOW",
        meaning: "Less than a tenth of the disk of a node's data directory is free; less than a twentieth is a problem. A node whose disk is full stops.",
        remedy: "`drtool runbook disk-full`.",
    },
    Code {
        name: "DISK_NO_SECOND_COPY",
        meaning: "The disk of a node has no room for what it holds a second time. A restore, a rejoin and a recovery keep the old contents aside while they build the new ones, and would stop for want of room.",
        remedy: "Give the disk room before the day on which it is needed: remove what was set aside earlier (`{data}/aside`), or use a larger volume.",
    },
    Code {
        name: "STORE_NOT_NAMED",
        meaning: "No object store was named, so nothing of it was looked at.",
        remedy: "Name it with --store, or CONFMAN_OBJECT_STORE_URL and the AWS_ variables, as the nodes have it.",
    },
    Code {
        name: "PREFIX_UNCLAIMED",
        meaning: "The store's prefix holds no object of the living cluster's life. Nodes write one when they reach their store: this is not the store that they use, or they have not reached it.",
        remedy: "Compare --store with CONFMAN_OBJECT_STORE_URL of the nodes; `drtool status` shows why snapshots fail.",
    },
    Code {
        name: "PREFIX_FOREIGN",
        meaning: "Another cluster has objects under the store's prefix. Nodes upload nothing to a prefix that another cluster owns.",
        remedy: "Give every cluster a bucket or prefix of its own, in CONFMAN_OBJECT_STORE_URL of its nodes.",
    },
    Code {
        name: "PREFIX_NEWER_LIFE",
        meaning: "The store says that a newer incarnation of this cluster was begun. Nodes of the older one fence themselves when they see it.",
        remedy: "Find out who recovered or restored the cluster, and where its nodes are. `drtool runbook lost-quorum` says how the older nodes rejoin.",
    },
    Code {
        name: "SNAPSHOT_OVERDUE",
        meaning: "The newest verified snapshot of a group is twice as old, or twice as many entries behind, as the thresholds of this machine's settings allow.",
        remedy: "`drtool snapshot create`; then find out why none was made by itself: `drtool status` shows a failure, `confman config` the thresholds.",
    },
    Code {
        name: "DRILL_UNKNOWN",
        meaning: "The store's reports of drills could not be listed, so nobody can say here when one was made and how it ended.",
        remedy: "The finding has the store's words. `drtool store probe` says whether listings work, compose/policies what a reader must be allowed.",
    },
];
