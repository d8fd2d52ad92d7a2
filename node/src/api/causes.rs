//! Why items of a batch failed, in one line of the log: a thousand of them fail for one reason.

use std::time::Instant;

use parking_lot::Mutex;

use super::failure::Failure;
use crate::grumble::Pace;

/// The first cause, and how many items had one.
#[derive(Default)]
pub(crate) struct Causes(Mutex<Option<(String, usize)>>);

impl Causes {
    /// An item failed. What is the client's own mistake has no cause that the log is told.
    pub(crate) fn note(&self, failure: &Failure) {
        let Some(cause) = failure.cause() else {
            return;
        };
        let mut noted = self.0.lock();
        let (_, items) = noted.get_or_insert_with(|| (cause.to_owned(), 0));
        *items += 1;
    }

    /// Tells the log, with the ids of the request that the items came with.
    pub(crate) fn tell(&self, pace: &Pace, request_id: &str, correlation_id: &str) {
        let Some((cause, items)) = self.0.lock().take() else {
            return;
        };
        if let Some(kept_back) = pace.may(Instant::now()) {
            let kept_back = (kept_back > 0).then_some(kept_back);
            tracing::warn!(
                request_id,
                correlation_id,
                items,
                kept_back,
                "items of a batch failed, the first one with: {cause}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::tests::logged;

    #[test]
    fn a_thousand_items_that_fail_are_one_line_with_the_ids_of_their_request() {
        let log = logged(|| {
            let (causes, pace) = (Causes::default(), Pace::default());
            causes.note(&Failure::invalid("items", "the client's own mistake"));
            causes.tell(&pace, "request-0", "correlation-0");
            for n in 0..1000 {
                causes.note(&Failure::internal(format!("broken {n}")));
            }
            causes.tell(&pace, "request-1", "correlation-1");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        for part in ["request-1", "correlation-1", "items=1000", "broken 0"] {
            assert!(log.contains(part), "{part} is not in: {log}");
        }
    }
}
