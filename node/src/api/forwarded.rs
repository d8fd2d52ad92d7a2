//! What another node sends on for its client ([`super::forward`]): it comes in at the peer listener, and goes to the same API.
//!
//! Promises: nothing gets to the API that does not come from a node of this life of this cluster (token and life are looked at
//! first), or that was meant for another node whose address was reused; the client's own key decides the rest, as if it had come
//! by itself.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::peer::CODE_KEY;
use crate::peer::Refusal;
use crate::peer::TOKEN_KEY;

/// The header that names the node which a request is sent on to, in its life.
pub(super) const ADDRESSEE: &str = "x-confman-addressee";
/// The header that every answer of the API bears which came this way. A version that knows no such way answers whatever it does not know
/// with a success, as gRPC does: without this mark nothing was done.
pub(super) const ANSWERED: &str = "x-confman-answered";

/// A life of a cluster in one word: which cluster, which incarnation, which of those of that number.
#[must_use]
pub fn life(cluster_uuid: &str, incarnation: u64, lineage: &str) -> String {
    format!("{cluster_uuid}/{incarnation}/{lineage}")
}

/// What [`ADDRESSEE`] says for a node of that [`life`].
#[must_use]
pub fn addressee(life: &str, node_id: u64) -> String {
    format!("{life}/{node_id}")
}

/// What a forwarded request shows beside the request itself.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The peer token.
    pub token: Option<&'a [u8]>,
    /// The [`addressee`].
    pub addressee: Option<&'a [u8]>,
}

/// Says whether it may come in.
pub type Admit = Arc<dyn Fn(Shown<'_>) -> Result<(), Refused> + Send + Sync>;

/// Why a forwarded request is not let in. None of them is the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The peer token is missing or wrong.
    Token,
    /// It is for another node, or for another life of this one.
    Addressee,
}

impl Refused {
    /// The refusal of that code.
    pub(super) fn of_code(code: &[u8]) -> Option<Self> {
        let all = [Self::Token, Self::Addressee];
        all.into_iter().find(|r| r.code().as_bytes() == code)
    }

    fn code(self) -> &'static str {
        match self {
            Self::Token => Refusal::Token.code(),
            Self::Addressee => Refusal::OtherNode.code(),
        }
    }
}

/// `api` behind that look. What is under way can be waited for.
pub fn door(api: Router, admit: Admit, under_way: &TaskTracker) -> Router {
    let under_way = under_way.clone();
    Router::new().fallback(move |mut request: Request| {
        let (api, admit, under_way) = (api.clone(), Arc::clone(&admit), under_way.clone());
        async move {
            if is_message(request.headers()) {
                // A message between nodes that a later version knows, and this one does not.
                return tonic::Status::unimplemented("this node is too old for it").into_http();
            }
            if let Err(refused) = admit(shown(request.headers())) {
                metrics::counter!("confman_peer_refused_total", "code" => refused.code())
                    .increment(1);
                return turned_away(refused);
            }
            // They are nobody's business from here on.
            for name in [TOKEN_KEY, ADDRESSEE] {
                request.headers_mut().remove(name);
            }
            let answered: Result<Response, Infallible> =
                under_way.track_future(api.oneshot(request)).await;
            let mut response = match answered {
                Ok(response) => response,
                Err(never) => match never {},
            };
            response
                .headers_mut()
                .insert(ANSWERED, HeaderValue::from_static("true"));
            response
        }
    })
}

/// Whether it is a message between nodes. A client may put a value of that content type too.
fn is_message(headers: &HeaderMap) -> bool {
    if headers.contains_key(ADDRESSEE) {
        return false;
    }
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn shown(headers: &HeaderMap) -> Shown<'_> {
    let of = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    Shown {
        token: of(TOKEN_KEY),
        addressee: of(ADDRESSEE),
    }
}

fn turned_away(refused: Refused) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
        .headers_mut()
        .insert(CODE_KEY, HeaderValue::from_static(refused.code()));
    response
}
