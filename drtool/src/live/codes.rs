//! The refusals and findings of this room.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[
    Code {
        name: "NODE_SILENT",
        meaning: "A node did not answer on its API within five seconds, or refused to.",
        remedy: "Look whether its process runs, at its log and at the network; start it again with its usual settings.",
    },
    Code {
        name: "NODE_SERVES_NOTHING",
        meaning: "The node's process runs and serves nothing: it has no identity yet, it is fenced, or its id was removed.",
        remedy: "Its own words say which. A fenced or removed node keeps its data; to bring it back move its data directory aside and start it again.",
    },
    Code {
        name: "NODE_NOT_READY",
        meaning: "The node answers and says that it should get no requests yet.",
        remedy: "It becomes ready by itself when what it waits for has happened. If it does not, look at its log.",
    },
    Code {
        name: "MEMBER_MISSING",
        meaning: "A member of a group did not answer under its id, though something may answer at its address.",
        remedy: "When its disk is lost, start it empty under its name: it joins under a new id. When it is gone for good, `drtool member remove` or `drtool member replace` it.",
    },
    Code {
        name: "LIVES_DIFFER",
        meaning: "Nodes that were asked are of different clusters, or of different incarnations of one.",
        remedy: "Of different clusters: name the endpoints of one. Of different incarnations: the older one's time is over; move its data directory aside and start it again.",
    },
    Code {
        name: "NO_QUORUM",
        meaning: "Fewer voters of a group are up than a majority: nothing can be committed, and reads that must be fresh fail.",
        remedy: "Start the voters that still have their data directories. Only when a majority is gone for ever go on with `drtool recover`.",
    },
    Code {
        name: "NO_LEADER",
        meaning: "A majority of a group is up and none of them leads.",
        remedy: "An election takes some seconds. If it stays, look at the network between the nodes and at their logs.",
    },
    Code {
        name: "NO_LEADER_SEEN",
        meaning: "A node knows no leader of a group, whatever the others say.",
        remedy: "If it stays, the node is cut off from the others: look at its network, its cluster token and its log.",
    },
    Code {
        name: "NO_TOLERANCE",
        meaning: "A group has just its majority: the next voter that goes takes the quorum with it.",
        remedy: "Bring the missing voters back, or replace them with `drtool member replace`.",
    },
    Code {
        name: "LEADERS_DIFFER",
        meaning: "Two nodes name different leaders of a group in the same term, which must never be.",
        remedy: "Stop writing, keep all data directories and logs, and report it.",
    },
    Code {
        name: "REPLICA_BEHIND",
        meaning: "A replica has not applied more than 500 entries that are committed.",
        remedy: "It catches up by itself. If it does not, look at its disk, its network and its log.",
    },
    Code {
        name: "STATE_DIFFERS",
        meaning: "Replicas of a group have different state hashes at the same position: one of them is wrong.",
        remedy: "Keep all data directories. Find the one that differs (`drtool diff` on stopped nodes), set its directory aside and let it rejoin empty.",
    },
    Code {
        name: "SNAPSHOT_FAILED",
        meaning: "The last attempt to snapshot a group failed; it is tried again by itself.",
        remedy: "The message and its hint say what failed; most often it is the object store.",
    },
    Code {
        name: "SNAPSHOT_OLD",
        meaning: "The newest verified snapshot of a group is more than a day old, and much was written since.",
        remedy: "`drtool snapshot create`; then find out why none was made by itself (CONFMAN_SNAPSHOT_*, the store).",
    },
    Code {
        name: "NOTHING_PROTECTED",
        meaning: "A group has no verified snapshot: if every node is lost, all of it is.",
        remedy: "`drtool snapshot create` makes one now.",
    },
];
