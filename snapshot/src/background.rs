//! Threads that stand back: building, uploading and verifying a snapshot must not delay what clients wait for (I5).
//!
//! Compressing, hashing and signing take whole cores for seconds. On threads of a lower priority they take what is
//! left over; the system sees to it, and no pause has to be guessed. What is opened there (connections to the store)
//! lives as long as the [`Background`].
//!
//! Not here: what runs. A simulation on a paused clock has no use for it: it calls `build_and_upload` itself.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::SnapshotError;

/// How far back its threads stand: 0 is like everybody else, 19 is last.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;
/// One that waits for the network, a few that read, write and decode.
const WORKERS: usize = 1;
const BLOCKING_THREADS_MAX: usize = 4;

/// A small runtime of its own, on threads of lower priority. Dropping it drops what still runs there, without waiting.
#[derive(Debug)]
pub struct Background {
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
}

impl Background {
    /// Starts the threads.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("confman-back")
            .on_thread_start(stand_back)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs `work` there and gives its answer. Dropping this future drops the work.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let gone = || SnapshotError::Internal("the background threads have ended".to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let mut task = Dropped(runtime.spawn(work));
        (&mut task.0)
            .await
            .map_err(|e| SnapshotError::Internal(format!("background work: {e}")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Never waits, so that it may be dropped from within another runtime.
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with its owner.
struct Dropped<T>(JoinHandle<T>);

impl<T> Drop for Dropped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(target_os = "linux")]
fn stand_back() {
    // On Linux this is the calling thread alone. Without it the work is done all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(not(target_os = "linux"))]
fn stand_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn i5_its_threads_stand_back_and_ours_do_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let background = Background::start().unwrap();
        let there = background
            .run(async move {
                let blocking = tokio::task::spawn_blocking(nice).await.unwrap();
                (nice(), blocking)
            })
            .await
            .unwrap();
        assert_eq!(there, (NICE.max(before), NICE.max(before)));
        assert_eq!(nice(), before);
        assert_eq!(tokio::task::spawn_blocking(nice).await.unwrap(), before);
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it() {
        let background = Background::start().unwrap();
        let (alive, mut gone) = tokio::sync::mpsc::channel::<()>(1);
        let work = background.run(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        // Started, and given up.
        tokio::time::timeout(std::time::Duration::from_millis(50), work)
            .await
            .unwrap_err();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), gone.recv()).await;
        assert_eq!(ended, Ok(None));
    }
}
