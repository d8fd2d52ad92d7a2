//! A collector of traces: what an OpenTelemetry Collector is to a node, with a memory and a bad day on demand.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// `service.instance.id` of the resource.
    pub(super) node: String,
    pub(super) name: String,
    /// `internal`, `server` or `client`.
    pub(super) kind: String,
    /// In hex, like the other ids.
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty for the first span of a trace.
    pub(super) parent: String,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) failed: bool,
    /// The span's, as text; numbers as `=1`.
    pub(super) attributes: BTreeMap<String, String>,
    /// The node's, as text.
    pub(super) resource: BTreeMap<String, String>,
    /// Everything, as it came.
    pub(super) raw: String,
}

impl Seen {
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone)]
struct Service {
    seen: Arc<Mutex<Vec<Seen>>>,
    hangs: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut hangs = self.hangs.clone();
        // Until it is told to go on; whoever asked may have gone by then.
        let _ = hangs.wait_for(|hangs| !hangs).await;
        let seen = read(request.into_inner());
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(seen);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector inside the test; it ends with it.
pub(super) struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    hangs: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (hangs, told) = watch::channel(false);
        let service = TraceServiceServer::new(Service {
            seen: Arc::clone(&seen),
            hangs: told,
        });
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            if let Err(error) = served.await {
                eprintln!("the collector ended: {error}");
            }
        });
        Ok(Self {
            address,
            seen,
            hangs,
            server,
        })
    }

    /// What `CONFMAN_OTLP_ENDPOINT` is set to.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// With `true` it takes every message and answers none, until it is told `false`.
    pub(super) fn hang(&self, yes: bool) {
        self.hangs.send_replace(yes);
    }

    /// Everything that has arrived.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// What has arrived of one trace.
    pub(super) fn of(&self, trace: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|span| span.trace == trace);
        seen
    }

    /// The one span that fits.
    pub(super) fn one(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        one(&self.seen(), what, fits)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The one of these spans that fits.
pub(super) fn one(
    spans: &[Seen],
    what: &str,
    fits: impl Fn(&Seen) -> bool,
) -> anyhow::Result<Seen> {
    let mut found = spans.iter().filter(|span| fits(span));
    let first = found
        .next()
        .with_context(|| format!("no {what} among {spans:#?}"))?;
    anyhow::ensure!(found.next().is_none(), "more than one {what}: {spans:#?}");
    Ok(first.clone())
}

fn read(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen = Vec::new();
    for of_node in request.resource_spans {
        let resource = texts(of_node.resource.unwrap_or_default().attributes);
        let node = resource.get("service.instance.id").cloned();
        for span in of_node
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            let kind = format!("{:?}", span.kind()).to_lowercase();
            seen.push(Seen {
                raw: format!("{span:?}"),
                node: node.clone().unwrap_or_default(),
                resource: resource.clone(),
                kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                begin_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                failed: span
                    .status
                    .as_ref()
                    .is_some_and(|status| status.code() == StatusCode::Error),
                attributes: texts(span.attributes),
                name: span.name,
            });
        }
    }
    seen
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        // A number is one: what is measured must not come as text.
        Some(Value::IntValue(number)) => format!("={number}"),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
