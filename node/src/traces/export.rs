//! How traces leave: a bounded queue, and one task that sends what is in it to the collector.
//!
//! Promises
//! - ending a span never waits: where the queue is full the span is dropped and counted;
//! - memory is bounded by [`QUEUE_SPANS`] and one batch, whatever the collector does;
//! - a collector that hangs costs the task its time limit, one that is gone a pause, and the log a line a minute;
//! - the end of the process waits for the rest of the queue no longer than [`FLUSH_WITHIN`].
//!
//! Not the SDK's batch processor, which neither counts what it drops nor bounds what its thread waits for; not the crate
//! `opentelemetry-otlp`, which is configured by `OTEL_*` variables that a node does not read.

use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::grumble::Grumble;
use crate::tls::connect::chain;

/// Spans that wait; each is a few hundred bytes, and about two thousand at most.
const QUEUE_SPANS: usize = 2048;
/// Spans in one message: together far below the 4 MiB that a collector takes.
const BATCH_SPANS: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the collector may take for a batch.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// After a failure; the spans of that batch are lost, those that wait are not.
const PAUSE: Duration = Duration::from_secs(1);
/// What the end of the process grants.
const FLUSH_WITHIN: Duration = Duration::from_millis(750);

/// The two ends of a queue for the collector at `endpoint`.
pub(crate) fn queue(endpoint: &str, resource: &Resource) -> (Queue, Export) {
    let (sender, spans) = mpsc::channel(QUEUE_SPANS);
    let export = Export {
        spans,
        endpoint: endpoint.to_owned(),
        resource: resource.into(),
    };
    (Queue { sender }, export)
}

/// Where spans go when they end.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<SpanData>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            count("dropped", 1);
        }
    }

    // Both are the task's: [`Exporting::finish`].
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn count(result: &'static str, spans: usize) {
    metrics::counter!("confman_trace_spans_total", "result" => result).increment(spans as u64);
}

/// What sends them, not yet running.
pub(crate) struct Export {
    spans: mpsc::Receiver<SpanData>,
    endpoint: String,
    resource: ResourceAttributesWithSchema,
}

impl Export {
    /// Begins to send, within a runtime.
    ///
    /// # Errors
    /// The endpoint is no URL, which the settings have ruled out.
    pub(crate) fn start(self) -> Result<Exporting, tonic::transport::Error> {
        let channel = Endpoint::from_shared(self.endpoint.clone())?
            .connect_timeout(CONNECT_WITHIN)
            // One that vanished without a word is noticed, and looked for anew under its name.
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_WITHIN)
            .tcp_nodelay(true)
            .connect_lazy();
        let stop = CancellationToken::new();
        let worker = Worker {
            spans: self.spans,
            resource: self.resource,
            client: TraceServiceClient::new(channel),
            outlook: Outlook::new(self.endpoint),
        };
        let task = tokio::spawn(worker.run(stop.clone()));
        Ok(Exporting { stop, task })
    }
}

/// The task that sends.
pub(crate) struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what waits, as far as the time for it goes.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        if timeout(FLUSH_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct Worker {
    spans: mpsc::Receiver<SpanData>,
    resource: ResourceAttributesWithSchema,
    client: TraceServiceClient<Channel>,
    outlook: Outlook,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let batch = self.gather(&stop).await;
            if !batch.is_empty() && !self.send(batch).await {
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        self.spans.close();
        loop {
            let mut batch = Vec::new();
            if self.spans.recv_many(&mut batch, BATCH_SPANS).await == 0 || !self.send(batch).await {
                return;
            }
        }
    }

    /// A full batch, or what came within a while of the first.
    async fn gather(&mut self, stop: &CancellationToken) -> Vec<SpanData> {
        let mut batch = Vec::new();
        tokio::select! {
            _ = self.spans.recv_many(&mut batch, BATCH_SPANS) => {}
            () = stop.cancelled() => return batch,
        }
        let fill = async {
            while batch.len() < BATCH_SPANS {
                let room = BATCH_SPANS - batch.len();
                if self.spans.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = fill => {}
            () = sleep(LINGER) => {}
            () = stop.cancelled() => {}
        }
        batch
    }

    /// Whether the collector took it. What it did not take is not sent again: the next batch is worth more.
    async fn send(&mut self, batch: Vec<SpanData>) -> bool {
        let spans = batch.len();
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let why = match timeout(EXPORT_WITHIN, self.client.export(request)).await {
            Ok(Ok(reply)) => {
                let refused = reply.into_inner().partial_success;
                let refused = refused.map_or(0, |partial| partial.rejected_spans);
                let refused = usize::try_from(refused).unwrap_or(0).min(spans);
                if refused > 0 {
                    count("failed", refused);
                }
                count("exported", spans - refused);
                self.outlook.good();
                return true;
            }
            Ok(Err(status)) => chain(&status),
            Err(_) => format!("no answer within {} s", EXPORT_WITHIN.as_secs()),
        };
        count("failed", spans);
        self.outlook.bad(&why, Instant::now());
        false
    }
}

/// What the log is told of the collector: little.
struct Outlook {
    endpoint: String,
    grumble: Grumble,
    /// A failure was told, and no recovery since.
    told: bool,
}

impl Outlook {
    fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            grumble: Grumble::default(),
            told: false,
        }
    }

    fn bad(&mut self, why: &str, now: Instant) {
        if let Some(kept_back) = self.grumble.may(&self.endpoint, "export", now) {
            self.told = true;
            tracing::warn!(
                endpoint = %self.endpoint, kept_back,
                hint = "CONFMAN_OTLP_ENDPOINT is a collector's receiver of OTLP over gRPC, mostly port 4317",
                "traces do not reach the collector and are lost, nothing else waits for it: {why}"
            );
        }
    }

    fn good(&mut self) {
        if std::mem::take(&mut self.told) {
            tracing::info!(endpoint = %self.endpoint, "traces reach the collector again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};

    use super::*;

    fn ends(endpoint: &str) -> (impl Fn(usize) + use<>, Export) {
        let resource = Resource::builder_empty().build();
        let (queue, export) = queue(endpoint, &resource);
        let tracer = crate::traces::provider(queue, resource, 1.0).tracer("test");
        // A span ends when it is dropped.
        let end = move |spans| (0..spans).for_each(|_| drop(tracer.start("x")));
        (end, export)
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (end, mut export) = ends("http://127.0.0.1:1");
        metrics::with_local_recorder(&recorder, || end(QUEUE_SPANS + 7));
        let counted = recorder.handle().render();
        let line = r#"confman_trace_spans_total{result="dropped"} 7"#;
        assert!(counted.lines().any(|l| l == line), "{counted}");
        let mut kept = 0;
        while export.spans.try_recv().is_ok() {
            kept += 1;
        }
        assert_eq!(kept, QUEUE_SPANS);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_waits_for_no_collector_that_hangs_or_is_gone() {
        // One takes connections and never says a word, the other is not there.
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let hangs = hanging.local_addr().unwrap().to_string();
        for address in [hangs.as_str(), "127.0.0.1:1"] {
            let (end, export) = ends(&format!("http://{address}"));
            let exporting = export.start().unwrap();
            end(QUEUE_SPANS * 2);
            let begun = Instant::now();
            exporting.finish().await;
            // With room for a busy machine, and far from the time limit of a message.
            assert!(begun.elapsed() < EXPORT_WITHIN / 2, "{:?}", begun.elapsed());
        }
    }
}
