//! One entry of a log as people and scripts read it.

use confman_snapshot::model::{MembershipMessage, Position};
use confman_store::StoreError;
use confman_store::command::{Command, Content, Op};
use confman_store::wire::{PayloadKind, WirePayload};
use serde::Serialize;

use super::record::time;

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Its index; none where it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The term of the leader that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// That leader's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// `blank`, `membership`, or what the command does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it is about, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The id of the request that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The leader's clock when it proposed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The entry at a position, or why there is none.
pub fn tell(read: Result<(Position, WirePayload), StoreError>) -> LogEntry {
    let mut told = LogEntry {
        index: None,
        term: None,
        node: None,
        kind: None,
        about: None,
        actor: None,
        request_id: None,
        time: None,
        error: None,
    };
    let (position, payload) = match read {
        Ok(read) => read,
        Err(error) => {
            let text = error.to_string();
            let text = text.split("\nhint: ").next().unwrap_or_default();
            told.error = Some(text.to_owned());
            return told;
        }
    };
    told.index = Some(position.index);
    told.term = Some(position.term);
    told.node = Some(position.node);
    match payload.kind {
        None => told.kind = Some("unknown".to_owned()),
        Some(PayloadKind::Blank(_)) => told.kind = Some("blank".to_owned()),
        Some(PayloadKind::Membership(membership)) => {
            told.kind = Some("membership".to_owned());
            told.about = Some(members(&membership));
        }
        Some(PayloadKind::Command(command)) => of_command(&mut told, &command),
    }
    told
}

fn of_command(told: &mut LogEntry, command: &Command) {
    told.kind = Some(command.op.as_ref().map_or("unknown", Op::name).to_owned());
    told.about = command.op.as_ref().and_then(about);
    told.time = Some(time(command.time_us));
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    told.actor = said(&command.actor);
    told.request_id = said(&command.request_id);
}

fn members(membership: &MembershipMessage) -> String {
    let list = |ids: &mut dyn Iterator<Item = &u64>| {
        let ids: Vec<String> = ids.map(ToString::to_string).collect();
        ids.join(", ")
    };
    let voters: Vec<String> = membership
        .voters
        .iter()
        .map(|set| list(&mut set.ids.iter()))
        .collect();
    let votes = |id: &u64| membership.voters.iter().any(|set| set.ids.contains(id));
    let learners = list(&mut membership.nodes.keys().filter(|id| !votes(id)));
    let mut text = format!("voters {}", voters.join(" and, together, "));
    if !learners.is_empty() {
        text.push_str(&format!("; learners {learners}"));
    }
    text
}

fn about(op: &Op) -> Option<String> {
    Some(match op {
        Op::Put(put) => {
            let bytes = match &put.content {
                Some(Content::Inline(bytes)) => bytes.len() as u64,
                Some(Content::Staged(staged)) => staged.size,
                None => 0,
            };
            format!("{}/{}, {bytes} bytes", put.namespace, put.key)
        }
        Op::Delete(delete) => format!("{}/{}", delete.namespace, delete.key),
        Op::CreateNamespace(create) => create.path.clone(),
        Op::DeleteNamespace(delete) => delete.path.clone(),
        Op::StagePart(part) => format!(
            "part {} of upload {}, {} bytes",
            part.seq,
            hex::encode(&part.upload_id),
            part.bytes.len()
        ),
        Op::SnapshotVerified(verified) => verified.record.as_ref()?.id.to_string(),
        Op::SnapshotsMarked(ids) | Op::SnapshotsDeleted(ids) => ids.ids.join(", "),
        Op::Genesis(genesis) => format!("cluster {}", genesis.cluster_uuid),
        Op::AdmitNode(admit) => format!("{} at {}", admit.name, admit.peer_addr),
        Op::ActivateNode(activate) => format!("node id {}", activate.id),
        Op::UpdateNode(update) => format!("node id {} at {}", update.id, update.peer_addr),
        Op::AssignSnapshot(task) => format!("{} to node {}", task.group, task.node),
        Op::FinishSnapshotTask(finish) => match &finish.error {
            Some(error) => format!("{}: {error}", finish.task_id),
            None => finish.task_id.clone(),
        },
        Op::BeginIncarnation(begin) => {
            format!(
                "incarnation {} by plan {}",
                begin.incarnation, begin.plan_id
            )
        }
        Op::ExpectNode(expect) => expect.record.as_ref()?.name.clone(),
        Op::ForgetNode(forget) => forget.name.clone(),
        Op::BeginChange(begin) => begin.change.as_ref()?.words(),
        Op::EndChange(end) => match &end.error {
            Some(error) => format!("{}: {error}", end.id),
            None => end.id.clone(),
        },
    })
}

impl std::fmt::Display for LogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "cannot be read: {error}");
        }
        let number = |n: Option<u64>| n.unwrap_or_default();
        write!(
            f,
            "{} term {} node {} {}",
            number(self.index),
            number(self.term),
            number(self.node),
            self.kind.as_deref().unwrap_or("unknown")
        )?;
        if let Some(about) = &self.about {
            write!(f, " {about}")?;
        }
        if let Some(actor) = &self.actor {
            write!(f, " by {actor}")?;
        }
        if let Some(time) = &self.time {
            write!(f, " at {time}")?;
        }
        Ok(())
    }
}
