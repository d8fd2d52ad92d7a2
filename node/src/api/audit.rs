//! The audit history: `GET /api/v1/audit`, newest first, of one namespace or of all groups together.
//!
//! Promises: pages neither repeat nor leave out a change, whatever is written between them: a cursor holds a place in
//! every group. Across groups the order is that of time; within a group it is that of the log.

use std::sync::Arc;

use confman_client::wire::AuditEvent;
use confman_client::wire::List;
use confman_snapshot::model::GroupId;
use confman_store::AuditEntry;
use confman_store::AuditFilter;
use confman_store::records::AuditRef;
use http::StatusCode;

use super::Api;
use super::backend::GroupBackend;
use super::call;
use super::call::Call;
use super::failure::Answer;
use super::failure::Failure;
use super::names as rules;
use super::query;
use super::query::Query;
use super::read;
use super::render;

/// What one change may weigh: two small values, twice over as JSON.
const EVENT_BYTES: u64 = 16 << 10;

/// `GET /api/v1/audit`.
pub(crate) async fn list(api: &Arc<Api>, call: &mut Call) -> Answer {
    let query = Query::parse(
        call.uri.query(),
        &["namespace", "recursive", "key", "limit", "cursor"],
    )?;
    let limit = query.limit()?;
    let filter = filter(&query)?;
    let groups = match &filter.namespace {
        Some(namespace) => vec![api.backend.route(namespace)],
        None => {
            let mut groups = vec![api.backend.meta()];
            groups.extend(api.backend.config_groups());
            groups
        }
    };
    let places = match query.cursor()? {
        Some(text) => read_places(&text, &groups)?,
        None => vec![None; groups.len()],
    };
    let _memory = api
        .budgets
        .json(EVENT_BYTES.saturating_mul((limit * groups.len()) as u64))
        .await?;
    read::barrier_all(api, &call.headers, &groups).await?;
    let position = match groups.as_slice() {
        [group] => group.state().applied(),
        _ => None,
    };

    let mut pages = Vec::with_capacity(groups.len());
    for (group, before) in groups.iter().zip(places) {
        let filter = filter.clone();
        let found = read::blocking(group.state(), move |state| {
            let page = state.list_audit(&filter, before, limit)?;
            // A search that stopped early has seen nothing older than this.
            let seen_until_us = match page.next {
                Some(at) if page.items.len() < limit => {
                    state.get_audit(at)?.map(|entry| entry.record.time_us)
                }
                _ => None,
            };
            Ok((page, seen_until_us))
        });
        let (page, seen_until_us) = found.await?;
        pages.push(GroupPage {
            group: group.id().clone(),
            items: page.items,
            next: page.next,
            seen_until_us,
        });
    }
    let merged = merge(pages, limit);
    let items: Vec<AuditEvent> = merged
        .items
        .iter()
        .map(|(group, entry)| render::audit_event(group, entry))
        .collect::<Result<_, _>>()?;
    let next_cursor = merged
        .next
        .map(|places| query::cursor(&write_places(&places)));
    let mut response = call::json(StatusCode::OK, &List { items, next_cursor })?;
    call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
    Ok(response)
}

fn filter(query: &Query) -> Result<AuditFilter, Failure> {
    let namespace = query
        .get("namespace")
        .map(|path| path.trim_end_matches('/').to_owned());
    if let Some(namespace) = &namespace {
        rules::check_namespace(namespace)?;
    }
    let recursive = query.flag("recursive")?;
    if recursive && namespace.is_none() {
        return Err(Failure::invalid(
            "recursive",
            "recursive goes with a namespace",
        ));
    }
    Ok(AuditFilter {
        namespace,
        recursive,
        // Not checked as a key: for nodes and snapshots it is their name or id.
        key: query.get("key").map(str::to_owned),
    })
}

/// What one group has to offer for a page.
struct GroupPage {
    group: GroupId,
    /// Newest first.
    items: Vec<AuditEntry>,
    /// Where it goes on.
    next: Option<AuditRef>,
    /// Set when the group may hold changes just older than this that it has not looked at.
    seen_until_us: Option<i64>,
}

struct Merged {
    items: Vec<(GroupId, AuditEntry)>,
    /// Where each group goes on; none at the end of the history.
    next: Option<Vec<(GroupId, AuditRef)>>,
}

/// The newest `limit` changes of all groups, and where each goes on.
fn merge(pages: Vec<GroupPage>, limit: usize) -> Merged {
    let unseen_us = pages.iter().filter_map(|page| page.seen_until_us).max();
    let mut items: Vec<(GroupId, AuditEntry)> = Vec::new();
    for page in &pages {
        items.extend(
            page.items
                .iter()
                .map(|entry| (page.group.clone(), entry.clone())),
        );
    }
    items.retain(|(_, entry)| unseen_us.is_none_or(|unseen| entry.record.time_us >= unseen));
    // The group breaks ties, so that the order is the same on every node and every page.
    items.sort_by(|(group_a, a), (group_b, b)| {
        (b.record.time_us, group_b, b.at).cmp(&(a.record.time_us, group_a, a.at))
    });
    items.truncate(limit);

    let mut more = false;
    let mut next = Vec::with_capacity(pages.len());
    for page in pages {
        let taken = items
            .iter()
            .filter(|(group, _)| *group == page.group)
            .count();
        let (place, rest) = if taken < page.items.len() {
            let place = match taken.checked_sub(1).and_then(|last| page.items.get(last)) {
                Some(last) => last.at,
                // Nothing taken: go on from the newest that was seen, so that what is written meanwhile stays out.
                None => page
                    .items
                    .first()
                    .map(|first| just_after(first.at))
                    .unwrap_or_default(),
            };
            (place, true)
        } else {
            match page.next {
                Some(place) => (place, true),
                // The end of this group: nothing comes before its beginning.
                None => (AuditRef::default(), false),
            }
        };
        more |= rest;
        next.push((page.group, place));
    }
    Merged {
        items,
        next: more.then_some(next),
    }
}

fn just_after(at: AuditRef) -> AuditRef {
    match at.sub.checked_add(1) {
        Some(sub) => AuditRef {
            index: at.index,
            sub,
        },
        None => AuditRef {
            index: at.index.saturating_add(1),
            sub: 0,
        },
    }
}

fn write_places(places: &[(GroupId, AuditRef)]) -> String {
    let places: Vec<String> = places
        .iter()
        .map(|(group, at)| format!("{group}={}.{}", at.index, at.sub))
        .collect();
    places.join(",")
}

/// The places of a cursor, one for each of `groups`, in their order.
fn read_places(
    text: &str,
    groups: &[Arc<dyn GroupBackend>],
) -> Result<Vec<Option<AuditRef>>, Failure> {
    let wrong = || {
        Failure::invalid("cursor", "the cursor does not belong to this list")
            .hint("begin again without it")
    };
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() != groups.len() {
        return Err(wrong());
    }
    groups
        .iter()
        .zip(parts)
        .map(|(group, part)| {
            let place = part
                .strip_prefix(&format!("{}=", group.id()))
                .ok_or_else(wrong)?;
            let (index, sub) = place.split_once('.').ok_or_else(wrong)?;
            Ok(Some(AuditRef {
                index: index.parse().map_err(|_| wrong())?,
                sub: sub.parse().map_err(|_| wrong())?,
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use confman_store::records::AuditRecord;
    use proptest::prelude::*;

    use super::*;

    fn entry(index: u64, time_us: i64) -> AuditEntry {
        AuditEntry {
            id: String::new(),
            at: AuditRef { index, sub: 0 },
            record: AuditRecord {
                time_us,
                ..AuditRecord::default()
            },
        }
    }

    /// One group's answer, as the store gives it: at most `looked_at` records are looked at.
    fn page(
        group: u32,
        history: &[i64],
        before: Option<AuditRef>,
        limit: usize,
        looked_at: usize,
    ) -> GroupPage {
        let older: Vec<AuditEntry> = history
            .iter()
            .enumerate()
            .map(|(i, time)| entry(i as u64 + 1, *time))
            .rev()
            .filter(|e| before.is_none_or(|before| e.at < before))
            .collect();
        let items: Vec<AuditEntry> = older.iter().take(limit.min(looked_at)).cloned().collect();
        let next = items
            .last()
            .map(|last| last.at)
            .filter(|_| items.len() < older.len());
        GroupPage {
            group: GroupId::config(group),
            seen_until_us: match next {
                Some(_) if items.len() < limit => items.last().map(|last| last.record.time_us),
                _ => None,
            },
            items,
            next,
        }
    }

    proptest! {
        #[test]
        fn pages_of_many_groups_join_to_the_whole_history(
            steps in proptest::collection::vec(proptest::collection::vec(1i64..50, 0..30), 1..4),
            limit in 1usize..12,
            looked_at in 1usize..12,
            late in 0usize..3,
        ) {
            let mut histories: Vec<Vec<i64>> = steps
                .iter()
                .map(|steps| steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect())
                .collect();
            let mut expected: Vec<(i64, GroupId, u64)> = Vec::new();
            for (g, history) in histories.iter().enumerate() {
                expected.extend(history.iter().enumerate().map(|(i, t)| (*t, GroupId::config(g as u32), i as u64 + 1)));
            }
            expected.sort_by(|a, b| b.cmp(a));

            let mut places: Vec<Option<AuditRef>> = vec![None; histories.len()];
            let mut got = Vec::new();
            for round in 0..10_000 {
                let pages = histories.iter().zip(&places).enumerate()
                    .map(|(g, (history, before))| page(g as u32, history, *before, limit, looked_at)).collect();
                let merged = merge(pages, limit);
                got.extend(merged.items.into_iter().map(|(group, e)| (e.record.time_us, group, e.at.index)));
                match merged.next {
                    None => break,
                    Some(next) => places = next.into_iter().map(|(_, at)| Some(at)).collect(),
                }
                // What is written between pages does not show in this list.
                if let Some(history) = histories.get_mut(late) && round < 3 {
                    history.push(1_000_000 + round);
                }
            }
            // The store looks at a bounded number of records a call; a page of it may be short but never skips.
            prop_assert_eq!(got, expected);
        }
    }
}
