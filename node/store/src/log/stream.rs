//! Streams that read a bounded batch of entries at a time.

use std::ops::{Bound, RangeBounds};

use futures::Stream;
use openraft::errors::LeaderChanged;
use openraft::storage::LeaderBoundedStreamError;

use super::store::{LogStore, READ_BYTES_MAX};
use crate::types::{Entry, LeaderId, TypeConfig};

/// First index of a range, and the one after its last.
pub(super) fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// A stream that reads a bounded batch of entries at a time.
pub(super) struct Batches {
    store: LogStore,
    leader: Option<LeaderId>,
    next: u64,
    end: u64,
    batch: std::vec::IntoIter<Entry>,
    ended: bool,
}

impl Batches {
    pub(super) fn new(
        store: &LogStore,
        leader: Option<LeaderId>,
        range: &impl RangeBounds<u64>,
    ) -> Self {
        let (next, end) = bounds(range);
        Self {
            store: store.clone(),
            leader,
            next,
            end,
            batch: Vec::new().into_iter(),
            ended: false,
        }
    }

    fn check_leader(&self) -> Result<(), LeaderBoundedStreamError<TypeConfig>> {
        let Some(leader) = self.leader else {
            return Ok(());
        };
        match self.store.vote() {
            Some(vote) if vote.leader_id == leader && vote.committed => Ok(()),
            other => Err(LeaderChanged::new(leader, other).into()),
        }
    }

    async fn next(&mut self) -> Result<Option<Entry>, LeaderBoundedStreamError<TypeConfig>> {
        if let Some(entry) = self.batch.next() {
            return Ok(Some(entry));
        }
        if self.ended {
            return Ok(None);
        }
        self.check_leader()?;
        let batch = self.store.read(self.next, self.end, READ_BYTES_MAX).await?;
        // The entries are this leader's only if it still was the leader when they had been read.
        self.check_leader()?;
        match batch.last() {
            Some(last) => self.next = last.log_id.index + 1,
            None => self.ended = true,
        }
        self.ended |= self.next >= self.end;
        self.batch = batch.into_iter();
        Ok(self.batch.next())
    }

    pub(super) fn into_stream(
        self,
    ) -> impl Stream<Item = Result<Entry, LeaderBoundedStreamError<TypeConfig>>> + Send {
        futures::stream::unfold(Some(self), |state| async move {
            let mut batches = state?;
            match batches.next().await {
                Ok(Some(entry)) => Some((Ok(entry), Some(batches))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
