//! Traces: what happens inside a request, a snapshot or a restore, for an OpenTelemetry collector.
//!
//! Promises
//! - without `CONFMAN_OTLP_ENDPOINT` nothing is made: no layer takes the spans, so their callsites are off for good and cost
//!   a load of an atomic each;
//! - a collector that is slow, hangs or is gone delays and fails nothing: see [`export`];
//! - only the fields named where a span is made leave the process, which are names, ids, counts and kinds of errors: never
//!   values, keys, tokens, headers, log lines or the text of an error;
//! - spans are no part of log lines, which stay flat; the line of a request bears the id of its trace.
//!
//! Does not: measure ([`crate::meters`]), log, or trace what nobody asked for: heartbeats, replication, `/health`, `/metrics`.
//!
//! Where to go next: [`spans`] (the names and fields of all spans of this package; `confman-snapshot` and `confman-bootstrap`
//! make their own), [`carry`] (from one process to the next), [`sampling`] (which), [`export`] (how they leave).

pub(crate) mod carry;
pub(crate) mod export;
pub(crate) mod sampling;
pub(crate) mod spans;

use confman_config::OtlpSettings;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanLimits};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use self::export::{Export, Queue};
use self::sampling::Sampling;

/// Every module of this workspace, and so every span of it, begins like this.
const OURS: &str = "confman_";

/// Traces that are wanted: their maker, and the way out, which is taken when there is a runtime.
pub(crate) struct Traces {
    tracer: SdkTracer,
    export: Export,
}

impl Traces {
    /// Prepares them for the node of that name. Nothing is sent before [`Export::start`].
    pub(crate) fn new(settings: &OtlpSettings, node_name: &str) -> Self {
        // Not the builder that reads OTEL_* variables: a node's settings are CONFMAN_* and nothing else.
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "confman"),
                KeyValue::new("service.instance.id", node_name.to_owned()),
                KeyValue::new("service.version", confman_cli::VERSION),
            ])
            .build();
        let (queue, export) = export::queue(&settings.endpoint, &resource);
        let provider = provider(queue, resource, settings.sample_ratio);
        Self {
            tracer: provider.tracer("confman"),
            export,
        }
    }

    /// What the process's subscriber gets, and what sends what it collects.
    pub(crate) fn split(self) -> (SdkTracer, Export) {
        (self.tracer, self.export)
    }
}

fn provider(queue: Queue, resource: Resource, sample_ratio: f64) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_resource(resource)
        .with_sampler(Sampling::new(sample_ratio))
        .with_span_limits(SpanLimits::default())
        .build()
}

/// The layer that takes spans, and nothing but spans, to the tracer.
pub(crate) fn layer<S>(tracer: SdkTracer) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let ours = FilterFn::new(is_ours).with_max_level_hint(LevelFilter::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // Where in the sources, on which thread, for how long idle: nobody asked.
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        // The parent of a span is the one around it; nothing here asks OpenTelemetry which context is current.
        .with_context_activation(false)
        .with_filter(ours)
}

/// For the log: everything but our spans, which would stand before every line.
pub(crate) fn not_in_log_lines() -> FilterFn {
    let others: fn(&Metadata<'_>) -> bool = |metadata| !is_ours(metadata);
    FilterFn::new(others).with_max_level_hint(LevelFilter::TRACE)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with(OURS)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use confman_config::LogFormat;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::telemetry::dispatch;

    #[derive(Clone, Default)]
    struct Pages(Arc<Mutex<Vec<u8>>>);

    impl Write for Pages {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Pages {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    fn tracer() -> (SdkTracer, Export) {
        let settings = OtlpSettings {
            endpoint: "http://127.0.0.1:1".to_owned(),
            sample_ratio: 1.0,
        };
        Traces::new(&settings, "node1").split()
    }

    /// Runs it with a collector asked for, to which nothing is sent.
    pub(super) fn with_traces<T>(run: impl FnOnce() -> T) -> T {
        let (tracer, _export) = tracer();
        let dispatch =
            dispatch(LogFormat::Text, "off", false, std::io::sink, Some(tracer)).unwrap();
        tracing::dispatcher::with_default(&dispatch, run)
    }

    /// What it logs at `info`.
    pub(crate) fn logged(run: impl FnOnce()) -> String {
        let pages = Pages::default();
        let dispatch = dispatch(LogFormat::Text, "info", false, pages.clone(), None).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::callsite::rebuild_interest_cache();
            run();
        });
        String::from_utf8(pages.0.lock().unwrap().clone()).unwrap()
    }

    /// The log of a line within a span; and whether there was a span.
    fn line_within_a_span(format: LogFormat, tracer: Option<SdkTracer>) -> (String, bool) {
        let pages = Pages::default();
        let dispatch = dispatch(format, "info", false, pages.clone(), tracer).unwrap();
        let traced = tracing::dispatcher::with_default(&dispatch, || {
            tracing::callsite::rebuild_interest_cache();
            let span = spans::snapshot(&confman_store::records::SnapshotTask::default());
            span.in_scope(|| tracing::info!(answer = 42, "a line"));
            !span.is_disabled()
        });
        let text = String::from_utf8(pages.0.lock().unwrap().clone()).unwrap();
        (text, traced)
    }

    #[test]
    fn spans_are_off_without_a_collector_and_never_in_log_lines() {
        let own_words = " INFO confman_node::traces::tests: a line answer=42\n";
        for wanted in [false, true] {
            let (tracer, _export) = tracer();
            let given = wanted.then_some(tracer.clone());
            let (line, traced) = line_within_a_span(LogFormat::Text, given);
            assert_eq!(traced, wanted);
            assert!(
                line.ends_with(own_words) && line.lines().count() == 1,
                "{line}"
            );

            let (line, _) = line_within_a_span(LogFormat::Json, wanted.then_some(tracer));
            let mut object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&line).unwrap();
            object.remove("timestamp");
            let expected = serde_json::json!({
                "level": "INFO", "target": "confman_node::traces::tests", "message": "a line", "answer": 42,
            });
            assert_eq!(serde_json::Value::Object(object), expected);
        }
    }
}
