//! From one process to the next: W3C trace context in headers, of HTTP and of gRPC alike.
//!
//! Promises: what is no trace context is as if it were not there; of `tracestate`, which is others' and goes out with every
//! span, no more is taken than the standard asks everybody to pass on.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Which span of which trace a message is of.
pub(crate) const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// What the standard asks everybody to pass on at least; longer ones are dropped whole, so that a queue of spans stays small.
const TRACESTATE_CHARS_MAX: usize = 512;

struct Taken<'h>(&'h HeaderMap);

impl Extractor for Taken<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut all = self.0.get_all(key).iter();
        let first = all.next()?.to_str().ok()?;
        // Two of them say nothing.
        if all.next().is_some() || (key == TRACESTATE && first.len() > TRACESTATE_CHARS_MAX) {
            return None;
        }
        Some(first)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Given<'h>(&'h mut HeaderMap);

impl Injector for Given<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

/// Makes the span a child of the one that the headers name.
pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() || !headers.contains_key(TRACEPARENT) {
        return;
    }
    let propagator = TraceContextPropagator::new();
    let context = propagator.extract_with_context(&Context::new(), &Taken(headers));
    if context.has_active_span() {
        // Refused only where the span is none of ours, or has begun.
        let _ = span.set_parent(context);
    }
}

/// Names the span in the headers of a message, in place of what they named. A span that is off leaves them as they are: then
/// the trace goes past this node.
pub(crate) fn pass_on(span: &Span, headers: &mut HeaderMap) {
    if span.is_disabled() {
        return;
    }
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    TraceContextPropagator::new().inject_context(&span.context(), &mut Given(headers));
}

/// The id of the trace that the span is of, where it is one that is kept: for a log line.
pub(crate) fn trace_id(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let of = span.span_context();
    of.is_sampled().then(|| of.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::spans;
    use crate::traces::tests::with_traces;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What is passed on by a span that heard `came`.
    fn passed_on(came: &HeaderMap) -> HeaderMap {
        let span = spans::replicate();
        adopt(&span, came);
        let mut goes = came.clone();
        pass_on(&span, &mut goes);
        goes
    }

    #[test]
    fn a_trace_goes_on_under_a_new_parent() {
        with_traces(|| {
            let came = headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "vendor=opaque")]);
            let goes = passed_on(&came);
            let parent = goes[TRACEPARENT].to_str().unwrap();
            assert!(parent.starts_with(&format!("00-{TRACE}-")), "{parent}");
            assert!(parent.ends_with("-01") && parent != PARENT, "{parent}");
            assert_eq!(goes[TRACESTATE], "vendor=opaque");
        });
    }

    #[test]
    fn i19_what_is_no_trace_context_begins_a_trace_of_its_own() {
        let long = format!("00-{TRACE}{}-00f067aa0ba902b7-01", "0".repeat(5000));
        with_traces(|| {
            for bad in [
                "",
                "-",
                "00",
                "00---",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                &long,
            ] {
                let goes = passed_on(&headers(&[(TRACEPARENT, bad)]));
                let parent = goes[TRACEPARENT].to_str().unwrap();
                assert!(
                    !parent.contains(TRACE) && parent.len() == PARENT.len(),
                    "{bad}: {parent}"
                );
            }
            let twice = headers(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]);
            let goes = passed_on(&twice);
            assert_eq!(goes.get_all(TRACEPARENT).iter().count(), 1);
            assert!(!goes[TRACEPARENT].to_str().unwrap().contains(TRACE));
        });
    }

    #[test]
    fn i19_of_what_others_say_no_more_is_carried_than_is_asked() {
        let long = format!("vendor={}", "x".repeat(TRACESTATE_CHARS_MAX));
        with_traces(|| {
            let goes = passed_on(&headers(&[(TRACEPARENT, PARENT), (TRACESTATE, &long)]));
            assert!(goes[TRACEPARENT].to_str().unwrap().contains(TRACE));
            assert!(!goes.contains_key(TRACESTATE), "{goes:?}");
        });
    }

    #[test]
    fn a_node_without_a_collector_lets_the_trace_go_past() {
        let came = headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "vendor=opaque")]);
        let mut goes = came.clone();
        adopt(&Span::none(), &came);
        pass_on(&Span::none(), &mut goes);
        assert_eq!(goes, came);
        assert_eq!(trace_id(&Span::none()), None);
    }
}
