//! One ReadIndex round for all reads that wait at the moment it begins.
//!
//! A linearizable read needs proof, gathered after the read began, that this leader still leads. The
//! proof costs a heartbeat round to a quorum; reads that wait together share one. A read that
//! arrives while a round is under way waits for the next: the running one began before it.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use crate::api::backend::ReadError;
use crate::group::stopping;

type Waiter = oneshot::Sender<Result<u64, ReadError>>;

/// Hands reads to the rounds.
#[derive(Clone)]
pub(crate) struct ReadRounds {
    waiting: mpsc::Sender<Waiter>,
}

impl ReadRounds {
    /// Starts the task that runs rounds with `round`, which answers the index to wait for.
    /// It ends when the last handle is dropped.
    pub(crate) fn start<F, Fut>(round: F) -> Self
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<u64, ReadError>> + Send,
    {
        let (waiting, mut queue) = mpsc::channel::<Waiter>(4096);
        tokio::spawn(async move {
            let mut together = Vec::new();
            while queue.recv_many(&mut together, 4096).await > 0 {
                together.retain(|w| !w.is_closed());
                if together.is_empty() {
                    continue;
                }
                let answer = round().await;
                for waiter in together.drain(..) {
                    // A reader that went away needs no answer.
                    let _ = waiter.send(answer.clone());
                }
            }
        });
        Self { waiting }
    }

    /// The index that a read which begins now has to wait for.
    pub(crate) async fn index(&self) -> Result<u64, ReadError> {
        let (answer, answered) = oneshot::channel();
        self.waiting.send(answer).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}
