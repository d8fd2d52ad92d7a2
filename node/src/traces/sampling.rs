//! Which traces are kept, decided once, where a trace begins.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Requests by a ratio, everything else always: a snapshot an hour would hardly ever be among one in ten. Whatever belongs to a
/// trace that another process began follows what was decided there.
#[derive(Debug, Clone)]
pub(crate) struct Sampling {
    requests: Sampler,
    jobs: Sampler,
}

impl Sampling {
    pub(crate) fn new(ratio: f64) -> Self {
        let follow = |root: Sampler| Sampler::ParentBased(Box::new(root));
        Self {
            requests: follow(Sampler::TraceIdRatioBased(ratio)),
            jobs: follow(Sampler::AlwaysOn),
        }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = match kind {
            SpanKind::Server => &self.requests,
            _ => &self.jobs,
        };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    fn kept(sampling: &Sampling, parent: Option<&Context>, kind: &SpanKind, trace: u128) -> bool {
        let trace = TraceId::from_bytes(trace.to_be_bytes());
        let result = sampling.should_sample(parent, trace, "x", kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn begun_elsewhere(flags: TraceFlags) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from_bytes([1; 16]),
            SpanId::from_bytes([2; 8]),
            flags,
            true,
            TraceState::default(),
        ))
    }

    #[test]
    fn requests_are_kept_by_the_ratio_and_jobs_always() {
        let tenth = Sampling::new(0.1);
        let among = |kind: &SpanKind| {
            (0..10_000_u128)
                // Spread over the lower half, which the ratio is taken of.
                .filter(|n| kept(&tenth, None, kind, n * 0x9e37_79b9_7f4a_7c15 + 1))
                .count()
        };
        let requests = among(&SpanKind::Server);
        assert!((800..1200).contains(&requests), "{requests} of 10000");
        assert_eq!(among(&SpanKind::Internal), 10_000);
    }

    #[test]
    fn whoever_began_a_trace_decides() {
        let (none, all) = (Sampling::new(0.0), Sampling::new(1.0));
        let sampled = begun_elsewhere(TraceFlags::SAMPLED);
        let not = begun_elsewhere(TraceFlags::default());
        for kind in [SpanKind::Server, SpanKind::Internal] {
            assert!(kept(&none, Some(&sampled), &kind, 7));
            assert!(!kept(&all, Some(&not), &kind, 7));
        }
        assert!(!kept(&none, None, &SpanKind::Server, 7));
        assert!(kept(&all, None, &SpanKind::Server, 7));
    }
}
