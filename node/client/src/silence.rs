//! A node that takes the question and says nothing: stopped, hung, or cut off in the middle of a connection. Only time would tell, and
//! the time that a write may take is long. So it is asked at the side whether it is alive, which one that is merely slow answers at once.

use std::time::Duration;

use crate::Endpoint;
use crate::client::{CONNECT_MAX, Client};

/// How long an answer is waited for before the node is asked whether it is alive, and between two such questions: until then a
/// connection is there, or has failed.
const ASK_EACH: Duration = CONNECT_MAX;
/// How long that answer may take: less than a connection, so that a node that is cut off is found silent.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// More than this may take as long to arrive on a slow line, on which the question at the side would not get through.
pub(crate) const WATCHED_BYTES_MAX: u64 = 64 << 10;

impl Client {
    /// Ends when the node does not even say that it is alive; says so in words.
    pub(crate) async fn silence(&self, endpoint: &Endpoint) -> String {
        loop {
            tokio::time::sleep(ASK_EACH).await;
            // An error that comes at once is no silence: a node that is being stopped takes no connections, and ends what it began.
            if tokio::time::timeout(ANSWER_WITHIN, self.health(endpoint))
                .await
                .is_err()
            {
                return "it took the request and says nothing, not even that it is alive"
                    .to_owned();
            }
        }
    }
}
