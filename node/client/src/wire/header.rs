//! Header names, each spelled once, in lower case as HTTP libraries want them.

/// Version token `incarnation.term.index`: in answers, and in requests that read their own writes.
pub const VERSION: &str = "x-confman-version";
/// Read mode: `linearizable` (default), `read-your-writes` or `eventual`.
pub const CONSISTENCY: &str = "x-confman-consistency";
/// `true` asks a follower to forward the write instead of answering 307.
pub const FORWARD: &str = "x-confman-forward";
/// The value type of a raw upload, and of a raw download.
pub const TYPE: &str = "x-confman-type";
/// `true` on PUT: the same bytes and type make no new version.
pub const SKIP_UNCHANGED: &str = "x-confman-skip-unchanged";
/// `true` in the answer when `X-Confman-Skip-Unchanged` made the write a no-op.
pub const UNCHANGED: &str = "x-confman-unchanged";
/// Ties requests of one piece of work together; made when the client sends none, always echoed.
pub const CORRELATION_ID: &str = "x-correlation-id";
/// The node's own name for this request, in answers.
pub const REQUEST_ID: &str = "x-request-id";
/// A write with the same key is applied once and answers as it did.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
