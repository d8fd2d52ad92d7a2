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
        meaning: "The node's process runs and serves nothing: it has no identity yet, it is fenced, its state differs from the recorded one, or its id was removed.",
        remedy: "Its own words say which. A fenced or removed node keeps its data; to bring it back run `drtool set-aside` on its data directory and start it again.",
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
        remedy: "Of different clusters: name the endpoints of one. Of different incarnations: the older one's time is over, however many nodes it has. Stop those nodes, run `drtool set-aside` on their data directories and start them (`drtool runbook two-incarnations`); change nothing at the nodes of the newer one.",
    },
    Code {
        name: "MEMBER_EXPECTED",
        meaning: "A name may join the cluster and has not: the cluster is smaller than it is meant to be.",
        remedy: "Start it with an empty data directory and its usual settings; it joins by itself. When it will not come, `drtool member remove NAME`.",
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
    Code {
        name: "CHANGE_RUNNING",
        meaning: "Another change of the membership is under way; there is one at a time.",
        remedy: "Wait for it (`drtool member list` shows it), or call it off with a change of the same node: `drtool member remove NAME`.",
    },
    Code {
        name: "CHANGE_GOES_ON",
        meaning: "The change was begun and has not ended in the time that the command follows it.",
        remedy: "It goes on without the command. Run the same command again to follow it; `drtool status` says what a group waits for.",
    },
    Code {
        name: "CHANGE_GIVEN_UP",
        meaning: "A change of the membership was given up, or another one took its place. Some groups may have changed.",
        remedy: "`drtool member list` shows what is. Every intent can be repeated; what is already so is nothing to do.",
    },
    Code {
        name: "MEMBERSHIP_CHANGED",
        meaning: "Somebody changed the membership between the plan and the request.",
        remedy: "Run the command again: it plans anew from what is now.",
    },
    Code {
        name: "LESS_TOLERANCE",
        meaning: "After the change fewer nodes may go than now.",
        remedy: "Add a node first, or use `replace`. If it is meant, say --allow-less-tolerance.",
    },
    Code {
        name: "RESULT_HAS_NO_QUORUM",
        meaning: "With the membership that the change leads to nothing could be committed, by the nodes that are up now.",
        remedy: "Bring nodes that are down back first, or remove those that are gone for good before any other.",
    },
    Code {
        name: "LAST_VOTER",
        meaning: "Nobody would vote any more.",
        remedy: "Add or promote another node first.",
    },
    Code {
        name: "MEMBER_UNKNOWN",
        meaning: "The cluster has no node of that name.",
        remedy: "`drtool member list` shows the names.",
    },
    Code {
        name: "MEMBER_EXISTS",
        meaning: "A node of that name is a member.",
        remedy: "To move it start it with its new addresses; to change what it is use `promote`, `demote` or `remove`.",
    },
    Code {
        name: "MEMBER_DOWN",
        meaning: "The node does not answer the leader, so it cannot catch up or lead.",
        remedy: "Look whether its process runs and at its log; start it again with its usual settings.",
    },
    Code {
        name: "EXPECTED_ELSEWHERE",
        meaning: "The name is expected to join from another address.",
        remedy: "To expect it elsewhere, `drtool member remove NAME` first, then `add` it again.",
    },
    Code {
        name: "ADDRESS_TAKEN",
        meaning: "Another member listens for nodes at that address.",
        remedy: "Give the new node an address of its own.",
    },
    Code {
        name: "ADDRESS_NEEDED",
        meaning: "The new node is no member yet, and where it will listen was not said.",
        remedy: "Give HOST:PORT, where the new node listens for other nodes.",
    },
    Code {
        name: "BAD_ADDRESS",
        meaning: "The address is no host and port.",
        remedy: "Give the address where the node listens for other nodes, such as node4.example:6101.",
    },
    Code {
        name: "BAD_NAME",
        meaning: "The text is no name of a node.",
        remedy: "A name is 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit.",
    },
    Code {
        name: "SAME_NAME",
        meaning: "A node cannot take its own place.",
        remedy: "A node that lost its disk needs no command: start it empty under its name.",
    },
    Code {
        name: "ALREADY_VOTES",
        meaning: "The node that is to take another's place votes already.",
        remedy: "To have fewer nodes, `drtool member remove` the one that goes.",
    },
    Code {
        name: "NOT_A_VOTER",
        meaning: "Only who votes can lead.",
        remedy: "`drtool member promote` it first.",
    },
    Code {
        name: "GROUP_UNKNOWN",
        meaning: "The cluster has no group of that name.",
        remedy: "`drtool status` shows the groups.",
    },
];
