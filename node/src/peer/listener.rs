//! What comes in at the peer listener: messages of nodes for [`Service`], and requests of clients that nodes send on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::MESSAGE_BYTES_MAX;
use super::desk::{Desk, Stage};
use super::proto::peer_server::PeerServer;
use super::service::Service;
use crate::api::forwarded;
use crate::node::Node;
use crate::tls::door;

/// Who may send requests of clients on to this node: nodes of its own life, as in `peer::service`.
pub(crate) fn admission_of(desk: Arc<Desk>) -> forwarded::Admit {
    Arc::new(move |shown| {
        if !desk.token_fits(shown.token) {
            return Err(forwarded::Refused::Token);
        }
        match &*desk.stage() {
            Stage::Member(node) => {
                let own = forwarded::addressee(&life_of(node), node.id());
                if shown.addressee == Some(own.as_bytes()) {
                    return Ok(());
                }
                Err(forwarded::Refused::Addressee)
            }
            // A node that does not serve says so itself, and why.
            _ => Ok(()),
        }
    })
}

pub(crate) fn life_of(node: &Node) -> String {
    let cluster = node.cluster();
    forwarded::life(&cluster.uuid, cluster.incarnation, &node.identity().lineage)
}

/// Bytes of the headers of a message at the peer listener, as HTTP/2 counts them.
const HEADERS_MAX: u32 = 128 << 10;

/// Answers peers, and what they send on, until `closing`.
pub(crate) async fn serve(
    arrivals: tokio::sync::mpsc::Receiver<std::io::Result<door::Io>>,
    desk: Arc<Desk>,
    forwarded: axum::Router,
    closing: CancellationToken,
) {
    let service = PeerServer::new(Service { desk })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        // As much as the API takes, and what goes with it from node to node.
        .http2_max_header_list_size(HEADERS_MAX)
        .add_routes(Routes::from(
            forwarded.merge(Routes::new(service).into_axum_router().reset_fallback()),
        ))
        .serve_with_incoming_shutdown(
            tokio_stream::wrappers::ReceiverStream::new(arrivals),
            closing.cancelled_owned(),
        );
    if let Err(error) = served.await {
        tracing::error!("the peer listener ended: {error}");
    }
}
