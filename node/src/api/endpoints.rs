//! The table of the API: path, method, who may, and what answers.
//!
//! Promises: the router, the role check and the test of roles are made of this one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::MethodFilter;
use axum::routing::on;
use confman_client::wire::ProblemKind;
use futures::future::BoxFuture;

use super::Api;
use super::access::Access;
use super::audit;
use super::batch;
use super::call::Call;
use super::call::answer;
use super::config;
use super::failure::Answer;
use super::failure::Failure;
use super::members;
use super::namespaces;
use super::operate;

/// The methods that routes take (`HEAD` goes with `GET`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Get,
    /// Create or replace.
    Put,
    /// Have something done.
    Post,
    /// Remove.
    Delete,
}

impl Verb {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// Answers a call that has been admitted.
pub(crate) type Handler = for<'a> fn(&'a Arc<Api>, &'a mut Call) -> BoxFuture<'a, Answer>;

/// One row of the table.
pub struct Endpoint {
    /// The path, as the router and the metrics name it.
    pub path: &'static str,
    /// The method.
    pub verb: Verb,
    /// Who may.
    pub access: Access,
    pub(crate) handler: Handler,
}

macro_rules! endpoints {
    ($($verb:ident $path:literal $access:ident $handler:path;)*) => {
        &[$(Endpoint {
            path: $path,
            verb: Verb::$verb,
            access: Access::$access,
            handler: |api, call| Box::pin($handler(api, call)),
        },)*]
    };
}

/// Every endpoint.
pub static ENDPOINTS: &[Endpoint] = endpoints! {
    Get    "/health"                    Open    operate::health;
    Get    "/health/ready"              Open    operate::ready;
    Get    "/metrics"                   Open    operate::metrics;
    Get    "/api/v1/status"             Read    operate::status;
    Get    "/api/v1/status/hash"        Read    operate::state_hash;
    Get    "/api/v1/status/peers"       Read    operate::peers;
    Post   "/api/v1/admin/snapshots"    Operate operate::snapshots;
    Get    "/api/v1/admin/members"      Operate members::get;
    Post   "/api/v1/admin/members/changes" Operate members::change;
    Get    "/api/v1/namespaces"         Read    namespaces::list;
    Get    "/api/v1/namespaces/{*path}" Read    namespaces::get;
    Put    "/api/v1/namespaces/{*path}" Write   namespaces::put;
    Delete "/api/v1/namespaces/{*path}" Write   namespaces::delete;
    Get    "/api/v1/config/{*path}"     Read    config::get;
    Put    "/api/v1/config/{*path}"     Write   config::put;
    Delete "/api/v1/config/{*path}"     Write   config::delete;
    Get    "/api/v1/audit"              Read    audit::list;
    Post   "/api/v1/batch"              Write   batch::post;
};

/// What answers where no route is; a key is asked for first, so that strangers learn nothing.
static NOT_FOUND: Endpoint = Endpoint {
    path: "none",
    verb: Verb::Get,
    access: Access::Read,
    handler: |_, _| {
        Box::pin(async {
            Err(
                Failure::new(ProblemKind::NotFound, "there is nothing at this path")
                    .hint("the API is under /api/v1/"),
            )
        })
    },
};

/// What answers where a route does not take the method; axum adds `Allow`.
static METHOD_NOT_ALLOWED: Endpoint = Endpoint {
    path: "none",
    verb: Verb::Get,
    access: Access::Read,
    handler: |_, _| {
        Box::pin(async {
            Err(Failure::new(
                ProblemKind::MethodNotAllowed,
                "this path does not take the method",
            ))
        })
    },
};

/// The routes of the table.
pub(crate) fn routes(api: &Arc<Api>) -> Router {
    let through = |endpoint: &'static Endpoint| {
        let api = Arc::clone(api);
        move |request: Request| answer(api, endpoint, request)
    };
    ENDPOINTS
        .iter()
        .fold(Router::new(), |router, endpoint| {
            router.route(endpoint.path, on(endpoint.verb.filter(), through(endpoint)))
        })
        .method_not_allowed_fallback(through(&METHOD_NOT_ALLOWED))
        .fallback(through(&NOT_FOUND))
}
