//! A replica to apply commands to, and short names for commands.

use std::path::Path;

use bytes::Bytes;
use confman_snapshot::model::{ClusterId, GroupId, Position};
use confman_snapshot::value_hash;
use tempfile::TempDir;

use crate::command::*;
use crate::error::StoreError;
use crate::group::{GroupStore, OpenOptions};
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::paths::{DataPaths, GroupPaths};
use crate::records::*;
use crate::state::StateHandle;
use crate::types::{Entry, EntryPayload};
use crate::{convert, keys};

pub(super) const UUID: &str = "6f1c2f0a-58a5-4a7e-9d0a-3b1a2c4d5e6f";
pub(super) const SECOND: i64 = 1_000_000;

pub(super) fn cluster() -> ClusterId {
    ClusterId::new(UUID, 1)
}

pub(super) fn paths(dir: &Path, group: &GroupId) -> GroupPaths {
    DataPaths::new(dir).group(group)
}

pub(super) fn open(dir: &Path) -> Result<(LogStore, StateMachine, StateHandle), StoreError> {
    open_group(dir, &GroupId::config(0))
}

pub(super) fn open_group(
    dir: &Path,
    group: &GroupId,
) -> Result<(LogStore, StateMachine, StateHandle), StoreError> {
    let mut options = OpenOptions::new(cluster());
    options.state_cache_bytes = 8 << 20;
    options.log_cache_bytes = 1 << 20;
    GroupStore::open(paths(dir, group), options)
}

/// One replica that is given commands directly, as if they came out of its log.
pub(super) struct Replica {
    pub(super) dir: TempDir,
    pub(super) machine: StateMachine,
    pub(super) state: StateHandle,
    pub(super) log: LogStore,
    pub(super) next: u64,
    /// The leader's clock: one second on with every command.
    pub(super) clock_us: i64,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self::of(&GroupId::config(0))
    }

    pub(super) fn of(group: &GroupId) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine, state) = open_group(dir.path(), group).unwrap();
        Self {
            dir,
            machine,
            state,
            log,
            next: 1,
            clock_us: 1_700_000_000 * SECOND,
        }
    }

    /// Closes everything in good order and opens it again.
    pub(super) fn reopen(self) -> Self {
        let Self {
            dir,
            machine,
            state,
            log,
            next,
            clock_us,
        } = self;
        let group = state.group().clone();
        // A state without a vote in its log is refused.
        log.begin_if_empty();
        drop((machine, state, log));
        let (log, machine, state) = open_group(dir.path(), &group).unwrap();
        Self {
            dir,
            machine,
            state,
            log,
            next,
            clock_us,
        }
    }

    pub(super) fn entries(&mut self, commands: Vec<Command>) -> Vec<Entry> {
        commands
            .into_iter()
            .map(|command| {
                let index = self.next;
                self.next += 1;
                entry(index, command)
            })
            .collect()
    }

    /// Applies commands in one batch.
    pub(super) fn batch(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let entries = self.entries(commands);
        self.machine.apply_now(entries).unwrap()
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        self.batch(vec![command]).pop().unwrap()
    }

    /// Applies an operation of `ann`, one second after the last.
    pub(super) fn op(&mut self, op: Op) -> Outcome {
        self.clock_us += SECOND;
        let command = command(self.clock_us, op);
        self.apply(command)
    }

    /// As [`Replica::op`], with an idempotency key.
    pub(super) fn once(&mut self, key: &str, fingerprint: &str, op: Op) -> Outcome {
        self.clock_us += SECOND;
        let mut command = command(self.clock_us, op);
        command.idempotency_key = key.to_owned();
        command.fingerprint = Bytes::copy_from_slice(fingerprint.as_bytes());
        self.apply(command)
    }

    pub(super) fn wait(&mut self, us: i64) {
        self.clock_us += us;
    }

    /// The version of an entry.
    pub(super) fn version(&self, namespace: &str, key: &str) -> Option<u64> {
        self.state
            .get_entry(namespace, key)
            .unwrap()
            .map(|e| e.head.unwrap().version)
    }

    /// How many records of a kind there are.
    pub(super) fn count(&self, kind: u8) -> usize {
        let mut count = 0;
        self.state
            .reader()
            .unwrap()
            .scan(&[kind], None, |_, _| {
                count += 1;
                Ok(true)
            })
            .unwrap();
        count
    }

    /// The hash that apply kept is that of all records.
    pub(super) fn assert_hash(&self) {
        let (_, kept, found) = self.state.rehash().unwrap();
        assert_eq!(
            kept, found,
            "the hash that was kept up is not the one of the records"
        );
        assert_eq!(self.state.stats().state_hash, kept);
    }
}

pub(super) fn entry(index: u64, command: Command) -> Entry {
    let log_id = convert::log_id(&Position::new(3, 1, index));
    Entry {
        log_id,
        payload: EntryPayload::Normal(command),
    }
}

pub(super) fn command(time_us: i64, op: Op) -> Command {
    Command {
        time_us,
        actor: "ann".to_owned(),
        request_id: format!("r{}", time_us % 1_000_000_000 / SECOND),
        correlation_id: "c1".to_owned(),
        op: Some(op),
        ..Command::default()
    }
}

pub(super) fn put(namespace: &str, key: &str, value: &str) -> Op {
    put_if(namespace, key, value, None)
}

pub(super) fn put_if(
    namespace: &str,
    key: &str,
    value: &str,
    precondition: Option<Precondition>,
) -> Op {
    Op::Put(Put {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        value_type: ValueType::String.into(),
        content: Some(Content::Inline(Bytes::copy_from_slice(value.as_bytes()))),
        precondition,
        skip_unchanged: false,
    })
}

pub(super) fn delete(namespace: &str, key: &str) -> Op {
    Op::Delete(Delete {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        precondition: None,
    })
}

pub(super) fn create(path: &str) -> Op {
    Op::CreateNamespace(CreateNamespace {
        path: path.to_owned(),
    })
}

pub(super) fn drop_namespace(path: &str) -> Op {
    Op::DeleteNamespace(DeleteNamespace {
        path: path.to_owned(),
    })
}

pub(super) fn upload_id(number: u8) -> Bytes {
    Bytes::from(vec![number; keys::UPLOAD_ID_BYTES])
}

pub(super) fn stage(id: u8, seq: u32, bytes: &[u8]) -> Op {
    Op::StagePart(StagePart {
        upload_id: upload_id(id),
        seq,
        bytes: Bytes::copy_from_slice(bytes),
    })
}

/// The operations that stage a value.
pub(super) fn stage_all(id: u8, value: &[u8]) -> Vec<Op> {
    value
        .chunks(PART_BYTES)
        .enumerate()
        .map(|(seq, part)| stage(id, seq as u32, part))
        .collect()
}

pub(super) fn put_staged(namespace: &str, key: &str, id: u8, value: &[u8]) -> Op {
    Op::Put(Put {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        value_type: ValueType::Binary.into(),
        content: Some(Content::Staged(Staged {
            upload_id: upload_id(id),
            size: value.len() as u64,
            hash: Bytes::copy_from_slice(&value_hash(value)),
        })),
        precondition: None,
        skip_unchanged: false,
    })
}

/// An outcome in a few words.
pub(super) fn tell(outcome: &Outcome) -> String {
    let again = if outcome.replayed_from.is_some() {
        " (again)"
    } else {
        ""
    };
    let text = match outcome.answer.as_ref() {
        None => "nothing".to_owned(),
        Some(Answer::Written(w)) => {
            let head = w.head.as_ref().unwrap();
            let how = if w.unchanged {
                "unchanged"
            } else if w.created {
                "created"
            } else {
                "changed"
            };
            format!("{how} v{} {} bytes", head.version, head.size)
        }
        Some(Answer::Deleted(d)) => format!("deleted v{}", d.version),
        Some(Answer::NamespaceCreated(c)) => format!(
            "namespace {}",
            if c.created { "created" } else { "was there" }
        ),
        Some(Answer::NamespaceDeleted(d)) => format!(
            "namespace deleted, {} keys{}",
            d.keys,
            if d.more { ", more" } else { "" }
        ),
        Some(Answer::Staged(s)) => format!("staged {} bytes", s.bytes),
        Some(Answer::Recorded(_)) => "recorded".to_owned(),
        Some(Answer::NodeAdmitted(n)) => format!("node {}", n.id),
        Some(Answer::Done(_)) => "done".to_owned(),
        Some(Answer::Refused(r)) => {
            let version = r
                .current_version
                .map_or_else(String::new, |v| format!(" [v{v}]"));
            format!("refused {:?}: {}{version}", r.code(), r.detail)
        }
    };
    text + again
}
