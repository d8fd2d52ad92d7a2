//! What each finding of a directory means, and what to do.

use crate::codes::Code;

/// The way back for a node whose data is not to be trusted.
const REJOIN: &str = "If the cluster has a quorum without this node: stop it, move the directory away (keep it), start the node with an empty one; it rejoins under a new id and loses nothing. If not: this directory may be needed; `drtool recover collect` reads what can be read.";

const fn code(name: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code {
        name,
        meaning,
        remedy,
    }
}

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[
    code(
        "DIR_MISSING",
        "There is no directory at that path.",
        "Give the node's data directory (CONFMAN_DATA_DIR); `confman config` of that node shows it.",
    ),
    code(
        "DIR_IN_USE",
        "A process holds the directory. What is read from it may be moving: a finding about its log or state may be gone at the next look.",
        "Stop the node (SIGTERM) and look again before you act on a finding.",
    ),
    code(
        "DIR_UNREADABLE",
        "A file or directory is there and the system does not let it be read.",
        "Run as the user that the node runs as; if the system says that the disk failed, copy what can be copied before anything else.",
    ),
    code(
        "DIR_FOREIGN",
        "Something stands where a file of the directory itself should be: a symbolic link, a pipe, or the data of another group. It was not followed.",
        "Put the directory of each group back under its own name; move data instead of linking it. The data directory itself may be a link.",
    ),
    code(
        "DIR_UNKNOWN_FILE",
        "A file that no program of this version made. It does no harm by itself; a newer version may have written it.",
        "See what put it there. If a newer version of confman ran here, use that version.",
    ),
    code(
        "DIR_LEFTOVER",
        "A crash left an unfinished file. A start of the node removes it or goes on with it.",
        "Nothing.",
    ),
    code(
        "IDENTITY_MISSING",
        "There is no identity file: an empty directory, one that is no node's, or one that lost the file. With data of groups in it a node refuses to start here, because it could vote twice.",
        "Check the path. If the identity was lost, run `drtool set-aside` on the directory and start the node: it rejoins under a new id.",
    ),
    code(
        "IDENTITY_DAMAGED",
        "The identity file is not what was written, so nobody can say which node this is.",
        REJOIN,
    ),
    code(
        "IDENTITY_DISAGREES",
        "The state speaks of another cluster, a newer life of it, or another node than the identity file: parts of two directories were mixed.",
        "Find the directory that belongs together. Never start a node on this one.",
    ),
    code(
        "GROUP_MISSING",
        "The node had a group of which nothing is here. A replica that starts empty under the same id could vote twice.",
        REJOIN,
    ),
    code(
        "GROUP_DIVERGED",
        "The node found out that its state differs from the one that the group recorded, and stopped. A disk or a program went wrong.",
        "Keep the directory as evidence. `drtool diff` with another node's directory names the records. Run `drtool set-aside` on it and let the node rejoin.",
    ),
    code(
        "NODE_FENCED",
        "The node met a newer life of its cluster and serves nothing. Its data is of the old life.",
        "If its last writes matter, compare it with a member of the new life (`drtool diff`). Then run `drtool set-aside` on the directory and start the node.",
    ),
    code(
        "NOT_A_MEMBER",
        "By its own last news the node is not a member of the group: it was taken out, or it was joining and nobody had taken it in yet.",
        "Compare with `drtool member list` of the running cluster.",
    ),
    code(
        "LOG_DAMAGED",
        "Bytes of the log are not what was written. What was acknowledged may be among them, so the node does not start.",
        REJOIN,
    ),
    code(
        "LOG_HOLE",
        "Entries are missing between two that are there: a file is gone, or its entries cannot be read.",
        REJOIN,
    ),
    code(
        "LOG_ORDER",
        "Records of the log contradict each other: an entry out of order, a vote that goes back, or an applied entry that is not the one in the log.",
        REJOIN,
    ),
    code(
        "LOG_TORN_TAIL",
        "The last write was cut short by a crash. It was never acknowledged; a start of the node cuts it off. This tool leaves it.",
        "Nothing. Keep a copy of the directory if you need the evidence.",
    ),
    code(
        "LOG_UNDECODABLE",
        "An entry of the log holds something that this version does not understand.",
        "Use the version of confman and drtool that the other nodes run.",
    ),
    code(
        "VOTE_MISSING",
        "The state has applied entries and the log has never seen a vote: the log was lost. The node could vote twice in a term, so it does not start.",
        REJOIN,
    ),
    code(
        "VOTE_BEHIND_LOG",
        "The vote is older than the last entry. Raft writes no entry of a leader whose vote it has not seen: the log was mixed from two copies.",
        REJOIN,
    ),
    code(
        "STATE_MISSING",
        "There is a log and no state beside it.",
        REJOIN,
    ),
    code(
        "STATE_DAMAGED",
        "The state database cannot be read, in whole or in part.",
        REJOIN,
    ),
    code(
        "STATE_BEHIND_LOG",
        "The log begins after the last entry that the state has applied: what lies between is nowhere here.",
        REJOIN,
    ),
    code(
        "STATE_AHEAD_OF_LOG",
        "The state has applied entries that the log does not have. After a snapshot was installed this is sound and shown as information; otherwise the log lost its end, with entries that the node had acknowledged.",
        REJOIN,
    ),
    code(
        "STATE_HASH_MISMATCH",
        "The hash of all records is not the one that was kept up with every change: a record was changed, lost or added behind the state's back.",
        "Keep the directory as evidence. `drtool diff` with another node's directory names the records. Run `drtool set-aside` on it and let the node rejoin.",
    ),
    code(
        "STATE_NOT_OF_LOG",
        "The state tells of other changes than the log beside it at the same positions: log and state are of two copies.",
        REJOIN,
    ),
    code(
        "RECORD_DAMAGED",
        "A record of the state is not what was written: it does not decode, has a name that cannot be, or a value whose hash is another one.",
        "Keep the directory as evidence. `drtool diff` with another node's directory shows what the record should be. Run `drtool set-aside` on it and let the node rejoin.",
    ),
    code(
        "RECORD_UNKNOWN",
        "The state holds a record of a kind that this version does not know.",
        "Use the version of confman and drtool that the other nodes run.",
    ),
    code(
        "RECORDS_DISAGREE",
        "Records of the state contradict each other, such as a namespace that says how many keys it holds and holds more. If other nodes have the same, it is a defect of confman: please report it.",
        "Compare with another node's directory (`drtool diff`) to see whether this one alone is affected.",
    ),
    code(
        "AUDIT_BROKEN",
        "The audit history is not whole: an event is missing, out of order, or does not follow from the one before it of the same key.",
        "Compare with another node's directory (`drtool diff`); a snapshot from before (`drtool snapshot list`) has the history up to its position.",
    ),
    code(
        "SNAPSHOT_RECORD_DAMAGED",
        "The state names a snapshot in the store by a record that this program could not have written.",
        "Check the snapshots themselves: `drtool snapshot verify --all`.",
    ),
    code(
        "SURGERY_UNFINISHED",
        "A recovery was begun in this directory and has not ended. No node starts on it until it is done or undone.",
        "Run the command that the finding names.",
    ),
    code(
        "SURGERY_DAMAGED",
        "The file that says which recovery is under way is not what was written.",
        "Run `drtool recover apply` or `drtool recover undo` with the plan that was being applied.",
    ),
    code(
        "INCARNATION_UNBORN",
        "A recovery or a restore prepared a new life of the cluster, which has not begun in every group as far as this node knows. The node answers no client until it has.",
        "Start the members that the plan names; `drtool status` shows when the life has begun.",
    ),
    code(
        "INCARNATION_DAMAGED",
        "The file that says how a new life of the cluster begins is not what was written.",
        "Run `drtool recover apply` with the same plan again: it writes the file anew.",
    ),
    code(
        "RESTORE_REPORT_DAMAGED",
        "The file that tells how a group's state came here from a snapshot is not what was written. Only `status` is poorer for it, unless the restore had not ended.",
        "Nothing, if `drtool verify` finds no more; otherwise set the directory aside and let the node rejoin.",
    ),
    code(
        "DIFF_OTHER_CLUSTER",
        "The two directories are of two clusters: what differs between them means nothing.",
        "Check the paths.",
    ),
    code(
        "DIFF_OTHER_LIFE",
        "The two directories are of two lives of one cluster: from where the later life began they may differ.",
        "Read the difference with the report of the recovery or restore that lies between them.",
    ),
    code(
        "DIFF_UNREADABLE",
        "A part of a log or state could not be read, so that a difference may have been missed.",
        "`drtool verify DIR` says what is wrong with each directory.",
    ),
];
