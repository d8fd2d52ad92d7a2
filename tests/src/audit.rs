//! The audit history as one node tells it, and whether it agrees with what clients did.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::history::{Act, Op, Outcome, VERSIONS_OF_A_LIFE};
use crate::http::Api;

/// Pages that a history may have before something must be wrong.
const PAGES_MAX: usize = 10_000;

/// Every event of a namespace and what is below it (or of everything), oldest first, as one node tells it now.
///
/// # Errors
/// The node does not answer, or the cursor never ends.
pub async fn events(api: &Api, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let filter = namespace
        .map(|name| format!("&namespace={name}&recursive=true"))
        .unwrap_or_default();
    let mut found = Vec::new();
    let mut cursor = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/api/v1/audit?limit=1000{filter}{cursor}");
        let answer = api
            .get(&path)
            .consistency("eventual")
            .send()
            .await?
            .expect(&[200])?;
        let page = answer.json()?;
        found.extend(
            page["items"]
                .as_array()
                .context("a page without items")?
                .iter()
                .cloned(),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                found.reverse();
                return Ok(found);
            }
        }
    }
    bail!("the audit history does not end within {PAGES_MAX} pages")
}

/// Checks that the events (oldest first) tell each acknowledged write once, in the order of the log, nothing that was
/// refused, and nothing that nobody asked for; and that each key's versions are without a gap.
///
/// # Errors
/// The first thing that does not agree.
pub fn check(history: &[Op], events: &[Value]) -> Result<(), String> {
    let mut asked: HashMap<&str, &Op> = HashMap::new();
    for op in history.iter().filter(|op| op.act != Act::Read) {
        asked.insert(&op.id, op);
    }
    let mut told: HashMap<&str, usize> = HashMap::new();
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        let action = event["action"].as_str().unwrap_or_default();
        if action != "put" && action != "delete" {
            continue;
        }
        let key = format!("{}/{}", text(event, "namespace"), text(event, "key"));
        let id = text(event, "correlationId");
        let op = asked
            .get(id)
            .ok_or_else(|| format!("{key}: {action} by {id:?}, which nobody asked for: {event}"))?;
        if told.insert(&op.id, place).is_some() {
            return Err(format!(
                "{key}: {id} was applied twice, the second time as {event}"
            ));
        }
        check_event(&key, action, op, event)?;
        check_version(&key, action, event, &mut versions)?;
    }
    check_complete(history, &told)
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn check_event(key: &str, action: &str, op: &Op, event: &Value) -> Result<(), String> {
    let wanted = match &op.act {
        Act::Put(value) => ("put", Some(value.as_str())),
        Act::Delete | Act::Read => ("delete", None),
    };
    let told = (action, event["newValue"].as_str());
    if op.key != key || told != wanted {
        return Err(format!(
            "{} asked for {:?} on {}, audit tells {event}",
            op.id, op.act, op.key
        ));
    }
    match op.outcome {
        Outcome::Refused | Outcome::Saw(_) => {
            Err(format!("{} was refused, yet audit tells {event}", op.id))
        }
        Outcome::Done {
            version: Some(version),
            ..
        } if event["version"].as_u64() != Some(version) => Err(format!(
            "{} was told version {version}, audit tells {event}",
            op.id
        )),
        _ => Ok(()),
    }
}

/// Puts count up by one; a delete ends with the version that it removed, or counts too.
fn check_version(
    key: &str,
    action: &str,
    event: &Value,
    versions: &mut BTreeMap<String, u64>,
) -> Result<(), String> {
    let version = event["version"]
        .as_u64()
        .ok_or_else(|| format!("{key}: no version in {event}"))?;
    let known = versions.insert(key.to_owned(), version).unwrap_or(0);
    // The first version of a key in a life: of those before it nothing else is asked here.
    let known = known.max(version / VERSIONS_OF_A_LIFE * VERSIONS_OF_A_LIFE);
    let fits = version == known + 1 || (action == "delete" && version == known);
    if fits {
        Ok(())
    } else {
        Err(format!(
            "{key}: version {known} is followed by {version}: {event}"
        ))
    }
}

fn check_complete(history: &[Op], told: &HashMap<&str, usize>) -> Result<(), String> {
    let mut done: Vec<(u64, &Op)> = history
        .iter()
        .filter_map(|op| match op.outcome {
            Outcome::Done { token, .. } => Some((token.index, op)),
            _ => None,
        })
        .collect();
    done.sort_by_key(|(index, _)| *index);
    let mut before: Option<(usize, &Op)> = None;
    for (index, op) in done {
        let place = told.get(op.id.as_str());
        let place = *place.ok_or_else(|| {
            format!(
                "{} was acknowledged at {index}, audit does not know it: lost",
                op.id
            )
        })?;
        if let Some((earlier, known)) = before
            && place < earlier
        {
            return Err(format!(
                "audit tells {} before {}, the log the other way round",
                op.id, known.id
            ));
        }
        before = Some((place, op));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Token;

    fn op(id: &str, value: &str, index: u64, version: u64) -> Op {
        let token = Token {
            incarnation: 1,
            term: 1,
            index,
        };
        Op {
            id: id.to_owned(),
            key: "app/k".to_owned(),
            act: Act::Put(value.to_owned()),
            call: 0,
            end: 1,
            outcome: Outcome::Done {
                token,
                version: Some(version),
            },
        }
    }
    fn event(id: &str, value: &str, version: u64) -> Value {
        json!({ "action": "put", "namespace": "app", "key": "k", "version": version, "newValue": value, "correlationId": id })
    }

    #[test]
    fn an_honest_history_passes() {
        let other = json!({ "action": "namespace.create", "namespace": "app" });
        let history = [op("a", "1", 5, 1), op("b", "2", 6, 2)];
        check(&history, &[other, event("a", "1", 1), event("b", "2", 2)]).unwrap();
    }

    #[test]
    fn a_lost_write_is_found() {
        let error = check(
            &[op("a", "1", 5, 1), op("b", "2", 6, 2)],
            &[event("a", "1", 1)],
        )
        .unwrap_err();
        assert!(
            error.contains("b was acknowledged") && error.contains("lost"),
            "{error}"
        );
    }

    #[test]
    fn a_doubled_write_is_found() {
        let error = check(
            &[op("a", "1", 5, 1)],
            &[event("a", "1", 1), event("a", "1", 2)],
        )
        .unwrap_err();
        assert!(error.contains("applied twice"), "{error}");
    }

    #[test]
    fn a_reordered_history_is_found() {
        let mut history = [op("a", "1", 6, 1), op("b", "2", 5, 2)];
        let events = [event("a", "1", 1), event("b", "2", 2)];
        assert!(
            check(&history, &events)
                .unwrap_err()
                .contains("other way round")
        );
        history[0] = op("a", "1", 4, 1);
        check(&history, &events).unwrap();
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        assert!(
            check(&[], &[event("x", "1", 1)])
                .unwrap_err()
                .contains("nobody asked")
        );
    }

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let refused = Op {
            outcome: Outcome::Refused,
            ..op("a", "1", 5, 1)
        };
        assert!(
            check(&[refused], &[event("a", "1", 1)])
                .unwrap_err()
                .contains("refused")
        );
    }

    #[test]
    fn an_unknown_write_may_have_happened_once() {
        let unknown = Op {
            outcome: Outcome::Unknown,
            ..op("a", "1", 5, 1)
        };
        check(std::slice::from_ref(&unknown), &[]).unwrap();
        check(std::slice::from_ref(&unknown), &[event("a", "1", 1)]).unwrap();
        assert!(check(&[unknown], &[event("a", "1", 1), event("a", "1", 2)]).is_err());
    }

    #[test]
    fn a_gap_in_the_versions_is_found() {
        let error = check(&[op("a", "1", 5, 2)], &[event("a", "1", 2)]).unwrap_err();
        assert!(error.contains("followed by"), "{error}");
    }

    #[test]
    fn another_value_is_found() {
        assert!(check(&[op("a", "1", 5, 1)], &[event("a", "other", 1)]).is_err());
    }
}
