//! Every metric that a node measures: name, kind, labels and meaning, declared once.
//!
//! The packages measure where things happen, by name; this catalog is what `/metrics` says of them in `# HELP` lines and what
//! `METRICS.md` is made from. A test compares it with the names that stand in the sources, in both directions.
//!
//! Names follow Prometheus: base units (seconds, bytes), `_total` for counters.

use confman_snapshot::build::Phase;
use confman_snapshot::error::Kind as Remedy;
use confman_snapshot::model::GroupId;
use confman_snapshot::repository::OPERATIONS;
use metrics::Unit;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) meaning: &'static str,
}

macro_rules! meters {
    ($($kind:ident $name:literal [$($label:literal),*] $meaning:literal;)*) => {
        &[$(Meter { name: $name, kind: Kind::$kind, labels: &[$($label),*], meaning: $meaning }),*]
    };
}

/// All of them, in the order of the page.
pub(crate) const METERS: &[Meter] = meters! {
    Gauge "confman_build_info" ["version"] "Always 1; the version of the program";
    Gauge "confman_incarnation" [] "The life of the cluster that this node is of";
    Gauge "confman_serving" [] "1 while this node serves; 0 while it starts, is fenced, has diverged or is about to end. While it is 0 the gauges of its groups say no leader, or nothing (NaN)";
    Gauge "confman_fenced" [] "1 when this node met a newer incarnation of its cluster and serves nothing for good";
    Gauge "confman_diverged" ["group"] "1 when this replica's state was found to differ from the recorded one: its node stays up and serves nothing until its data directory is set aside";
    Gauge "confman_ready" ["group"] "1 while this replica has a leader and has applied what it must";
    Gauge "confman_disk_free_bytes" [] "Free on the disk of the data directory";
    Gauge "confman_disk_size_bytes" [] "Size of the disk of the data directory, less what is reserved for root";

    Gauge "confman_clock_offset_seconds" [] "How far this machine's clock is ahead of the middle of all nodes' clocks; beyond 10 s either way the middle is followed";
    Gauge "confman_group_time_ahead_seconds" ["group"] "How far the newest time in the log is ahead of the nodes' clocks, because they were ahead when it was written: time goes on at half speed until they have caught up";

    Gauge "confman_raft_term" ["group"] "Raft's term";
    Gauge "confman_raft_is_leader" ["group"] "1 on the leader";
    Gauge "confman_raft_has_leader" ["group"] "1 while a leader shows; a cluster without a quorum has none";
    Counter "confman_raft_leader_changes_total" ["group"] "How often another leader, or none, was seen";
    Gauge "confman_raft_voters" ["group"] "Voters, as this replica knows them";
    Gauge "confman_raft_failure_tolerance" ["group"] "On the leader: how many more voters may go before nothing can be written, by who answered lately; negative without a quorum";
    Gauge "confman_raft_last_index" ["group"] "Last entry in the log";
    Gauge "confman_raft_committed_index" ["group"] "Last entry that is known to be committed";
    Gauge "confman_raft_applied_index" ["group"] "Last entry that is applied";
    Gauge "confman_raft_purged_index" ["group"] "Last entry that is no longer in the log";
    Gauge "confman_raft_proposals_in_flight" ["group"] "Commands that this node has proposed and whose outcome is not known yet";
    Counter "confman_peer_refused_total" ["code"] "Messages of other nodes that were refused before Raft heard them";

    Gauge "confman_tls_certificate_expiry_timestamp_seconds" ["certificate"] "When the node's certificate (node), or the first of the authorities that it trusts (authority), expires";
    Counter "confman_tls_reloads_total" ["result"] "Changes of the TLS files: in force (ok), or not taken because they will not do (refused)";
    Counter "confman_tls_handshakes_total" ["listener", "result"] "Handshakes with those who connect (api, peers): ok, or why they were turned away";

    Gauge "confman_log_entries" ["group"] "Entries in the log";
    Gauge "confman_log_bytes" ["group"] "Bytes of the log on disk";
    Histogram "confman_log_append_seconds" ["group"] "From an append to its being durable";
    Counter "confman_log_purge_held_total" ["group", "reason"] "Turns at which the log was not purged though a snapshot would allow it";
    Counter "confman_applied_entries_total" ["group"] "Entries applied";
    Histogram "confman_apply_seconds" ["group"] "Applying one batch of entries";
    Gauge "confman_state_hash_prefix" ["group"] "The first 48 bits of the state's hash: equal on replicas at equal positions";
    Counter "confman_state_hash_mismatches_total" ["group"] "How often a state differed from the recorded one, the leader's, or its own records";
    Counter "confman_state_hash_not_compared_total" ["group"] "Recorded state hashes that this replica could not compare with its own, which it did not remember: after a restart, or more than 278,528 entries later";

    Gauge "confman_snapshot_entries_since" ["group"] "Entries since the last verified snapshot: lost if every node burned now";
    Gauge "confman_snapshot_changed" ["group"] "1 when something that users see changed since the last verified snapshot, or there is none yet; what snapshots themselves write does not count";
    Gauge "confman_snapshot_unprotected_since_timestamp_seconds" ["group"] "When the oldest change was made that no verified snapshot holds, by the nodes' clocks; 0 while every change is in one. With no snapshot yet, when the group began";
    Gauge "confman_snapshot_last_index" ["group"] "Position of the last verified snapshot: what the store protects";
    Gauge "confman_snapshot_interval_seconds" [] "The longest time between two snapshots of a group that changes, as set (CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS); one that is older than twice this is told";
    Gauge "confman_snapshot_log_threshold_entries" [] "Entries since the last snapshot that make the next one due, as set (CONFMAN_SNAPSHOT_LOG_THRESHOLD); twice as many are told";
    Gauge "confman_snapshot_last_timestamp_seconds" ["group"] "When the last verified snapshot was taken, by the nodes' clocks: as long ago as it is in the group's time, also where that is ahead of them";
    Counter "confman_snapshot_built_total" ["group"] "Snapshots built, uploaded and read back by this node";
    Counter "confman_snapshot_errors_total" ["group", "phase", "kind"] "Snapshots that failed, by phase (build, upload, verify) and by remedy: damaged when what was read back is not what was built, diverged when the database does not have the state hash that apply kept";
    Histogram "confman_snapshot_phase_seconds" ["group", "phase", "result"] "How long each phase of a snapshot took (build, upload, verify), and whether it succeeded (ok, failed)";
    Gauge "confman_snapshot_object_bytes" ["group"] "Size of the last snapshot that this node built";
    Gauge "confman_snapshot_raw_bytes" ["group"] "The same before compression";
    Gauge "confman_snapshot_records" ["group"] "Records in it";
    Counter "confman_snapshot_tasks_total" ["group", "result"] "Snapshot tasks that this node carried out";
    Counter "confman_snapshot_not_begun_total" ["class"] "Snapshots that could not begin because the store cannot be used, by remedy";
    Gauge "confman_drill_last_good_timestamp_seconds" [] "When the last drill passed, by the names of the reports in the store; 0 for never. On the leader of `__meta/0`, which looks every half hour";
    Counter "confman_restore_skipped_snapshots_total" ["group"] "Snapshots that a restore passed over, or could not go on with, because they were damaged or missing";
    Histogram "confman_restore_seconds" ["group", "result"] "How long this node took to restore a group, and where its state came from: the store, the leader (from whom it will), or nowhere (failed)";
    Histogram "confman_restore_phase_seconds" ["group", "phase", "result"] "How long each phase of a restore took (list, open, install), and whether it succeeded (ok, failed)";

    Counter "confman_store_requests_total" ["operation", "result"] "Requests to the object store, retries included, by answer: ok, not-found and conflict, which are answers too, or the kind of the error";
    Counter "confman_store_bytes_total" ["operation"] "Bytes of objects that went to the object store (put) or came from it (get)";
    Counter "confman_store_errors_total" ["operation", "kind"] "Requests that the object store failed, by remedy: retry, wait, credentials, configuration, damaged, ... That an object is not there, or is there already, is no failure";
    Counter "confman_store_retries_total" ["operation"] "Requests that were sent again";
    Counter "confman_store_uploads_not_aborted_total" [] "Multipart uploads that were given up and may still cost money";
    Gauge "confman_store_conditional_writes" [] "1 when the look at the store after the start found that it honours create-if-absent, of eight at once too, 0 when it ignores or refuses it or lets more than one of them win; absent until a look has found out";
    Counter "confman_store_fence_looks_total" ["result"] "Looks into the store for a newer life of this cluster: it knows none (well), it could not be asked (failed), it knows one (over). While all fail, writes go on and the store fences nobody";
    Gauge "confman_store_fence_look_timestamp_seconds" [] "When the last look into the store for a newer life of this cluster ended that saw there is none";
    Gauge "confman_store_foreign_objects" ["folder"] "Objects under the prefix that are not ours";

    Counter "confman_trace_spans_total" ["result"] "Spans that ended: sent to the collector (exported), not taken by it (failed), or more than the queue holds (dropped)";

    Counter "confman_http_requests_total" ["route", "method", "status"] "Requests answered; the route is (closed) for those refused by a node that does not serve";
    Histogram "confman_http_request_seconds" ["route"] "From a request's head to its answer's";
};

/// Says the meaning of each, so that `/metrics` has `# HELP` lines.
pub(crate) fn describe() {
    for meter in METERS {
        let unit = if meter.name.ends_with("_seconds") {
            Unit::Seconds
        } else if meter.name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        let help = match meter.labels {
            [] => meter.meaning.to_owned(),
            labels => format!("{} (by {})", meter.meaning, labels.join(", ")),
        };
        match meter.kind {
            Kind::Counter => metrics::describe_counter!(meter.name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(meter.name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(meter.name, unit, help),
        }
    }
}

/// Makes the counters that alerts watch appear at 0, before anything happens: an alert asks for an increase, and a counter
/// that appears with its first event has none.
pub(crate) fn begin() {
    for operation in OPERATIONS {
        let kind = Remedy::Damaged.name();
        metrics::counter!("confman_store_errors_total", "operation" => operation, "kind" => kind)
            .increment(0);
    }
    for result in ["ok", "refused"] {
        metrics::counter!("confman_tls_reloads_total", "result" => result).increment(0);
    }
}

/// As [`begin`], for a group that this node has.
pub(crate) fn begin_group(group: &GroupId) {
    let group = group.to_string();
    metrics::gauge!("confman_diverged", "group" => group.clone()).set(0.0);
    metrics::counter!("confman_state_hash_mismatches_total", "group" => group.clone()).increment(0);
    let (phase, kind) = (Phase::Verify.name(), Remedy::Damaged.name());
    metrics::counter!(
        "confman_snapshot_errors_total", "group" => group.clone(), "phase" => phase, "kind" => kind
    )
    .increment(0);
    metrics::counter!("confman_raft_leader_changes_total", "group" => group).increment(0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }

    /// The names that the sources hand to the macros that measure, tests left out.
    fn measured() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        for package in [
            "node/src",
            "node/store/src",
            "snapshot/src",
            "bootstrap/src",
        ] {
            sources(&root.join(package), &mut files);
        }
        let mut names = BTreeSet::new();
        for file in files.iter().filter(|f| !f.ends_with("meters.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            // An attribute of one item alone ends nothing.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
            for part in code.split("\"confman_").skip(1) {
                let name: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                // A prefix of names, and names of other things (a file, a feature), do not look like this.
                if !name.is_empty()
                    && !name.ends_with('_')
                    && part.chars().nth(name.len()) == Some('"')
                {
                    names.insert(format!("confman_{name}"));
                }
            }
        }
        names
    }

    #[test]
    fn what_is_measured_is_declared_and_the_other_way_round() {
        let declared: BTreeSet<String> = METERS.iter().map(|m| m.name.to_owned()).collect();
        assert_eq!(declared.len(), METERS.len(), "one is declared twice");
        assert_eq!(declared, measured());
    }

    #[test]
    fn what_alerts_and_the_dashboard_ask_for_is_measured() {
        let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose");
        let declared: BTreeSet<&str> = METERS.iter().map(|m| m.name).collect();
        for page in [
            "prometheus/rules.yml",
            "prometheus/rules.test.yml",
            "grafana/dashboards/confman.json",
        ] {
            let text = std::fs::read_to_string(compose.join(page)).unwrap();
            let mut asked = 0;
            for part in text.split("confman_").skip(1) {
                let name: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                let name = format!("confman_{name}");
                let of_a_histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix));
                assert!(
                    declared.contains(of_a_histogram.unwrap_or(&name)),
                    "{page} asks for {name}"
                );
                asked += 1;
            }
            assert!(asked > 10, "{page} asks for nothing");
        }
    }

    #[test]
    fn names_are_what_prometheus_users_expect() {
        for meter in METERS {
            assert_eq!(
                meter.kind == Kind::Counter,
                meter.name.ends_with("_total"),
                "{}",
                meter.name
            );
            if meter.kind == Kind::Histogram {
                assert!(meter.name.ends_with("_seconds"), "{}", meter.name);
            }
        }
    }

    /// `UPDATE_METRICS=1 cargo test -p confman-node --lib meters` writes it.
    #[test]
    fn the_page_is_up_to_date() {
        let mut page = String::from(
            "# Metrics\n\nWhat `GET /metrics` of a node tells. This page is made from `node/src/meters.rs`.\n\n\
             | metric | kind | labels | meaning |\n|---|---|---|---|\n",
        );
        for meter in METERS {
            let kind = format!("{:?}", meter.kind).to_lowercase();
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {} | {} |",
                meter.name,
                meter.labels.join(", "),
                meter.meaning
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("METRICS.md");
        if std::env::var_os("UPDATE_METRICS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            there, page,
            "run UPDATE_METRICS=1 cargo test -p confman-node --lib meters"
        );
    }
}
