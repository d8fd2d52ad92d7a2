//! Waiting for a condition, with a bound; never sleeping for luck.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

const PAUSE: Duration = Duration::from_millis(25);

/// Asks `condition` until it gives a value; its last complaint is the error when `bound` has passed.
///
/// # Errors
/// The bound has passed.
pub async fn wait_until<T, C, F>(what: &str, bound: Duration, mut condition: C) -> anyhow::Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = anyhow::Result<T>>,
{
    let begin = Instant::now();
    loop {
        let complaint = match condition().await {
            Ok(value) => return Ok(value),
            Err(complaint) => complaint,
        };
        if begin.elapsed() >= bound {
            bail!(
                "{what}: not within {:.1} s: {complaint:#}",
                bound.as_secs_f64()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}
