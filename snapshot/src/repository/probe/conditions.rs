//! Writes under conditions. Nothing here depends on them: where they hold they are one more fence.

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, PutMode, UpdateVersion};

use super::Verdict;
use super::long::{Found, LongProbe};

const FIRST: Bytes = Bytes::from_static(b"the first");
const SECOND: Bytes = Bytes::from_static(b"the second");

/// What a store said to a write whose condition did not hold.
enum Said {
    Refused,
    NotOffered,
    Accepted,
    Other(Error),
}

fn said<T>(answer: object_store::Result<T>) -> Said {
    match answer {
        Ok(_) => Said::Accepted,
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => {
            Said::Refused
        }
        Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Said::NotOffered,
        Err(error) => {
            // Some servers answer 501, or refuse the header itself.
            let text = error.to_string();
            if text.contains("501") || text.contains("NotImplemented") {
                Said::NotOffered
            } else {
                Said::Other(error)
            }
        }
    }
}

impl LongProbe {
    /// "Only if absent" on an object that is there.
    pub(super) async fn create_twice(&self) -> Found {
        let name = "create";
        if let Err(error) = self.put_if(name, &FIRST, PutMode::Create).await? {
            return self.unwanted(name, error);
        }
        let second = said(self.put_if(name, &SECOND, PutMode::Create).await?);
        let kept = self.get(name).await? == FIRST;
        Ok(match (second, kept) {
            (Said::Refused, true) => (
                Verdict::Good,
                "the second is refused, the first stays".into(),
            ),
            (Said::Refused, false) => (
                Verdict::Failed,
                "the second is refused, and yet it replaced the first".into(),
            ),
            (Said::Accepted, _) => (
                Verdict::Limited,
                "accepted and ignored: both writers are told that they won".into(),
            ),
            (Said::NotOffered, _) => (
                Verdict::NotOffered,
                "the store has no such condition".into(),
            ),
            (Said::Other(error), _) => return self.unwanted(name, error),
        })
    }

    /// Many at once want to create one object.
    pub(super) async fn create_race(&self) -> Found {
        let name = "race";
        let contents: Vec<Bytes> = (0..self.plan.racers)
            .map(|racer| Bytes::from(format!("racer {racer}")))
            .collect();
        let writes = contents
            .iter()
            .map(|content| self.put_if(name, content, PutMode::Create));
        let mut winners = Vec::new();
        for (answer, content) in join_all(writes).await.into_iter().zip(&contents) {
            match said(answer?) {
                Said::Accepted => winners.push(content),
                Said::NotOffered => {
                    return Ok((
                        Verdict::NotOffered,
                        "the store has no such condition".into(),
                    ));
                }
                // A conflict of two requests at a time is an answer to a race.
                Said::Refused | Said::Other(_) => {}
            }
        }
        let racers = contents.len();
        let there = match self.head(name).await? {
            Some(_) => Some(self.get(name).await?),
            None => None,
        };
        Ok(match (winners.as_slice(), there) {
            ([winner], Some(there)) if there == **winner => (
                Verdict::Good,
                format!("one of {racers} wins, and its bytes are there"),
            ),
            ([_], _) => (
                Verdict::Failed,
                format!("one of {racers} is told that it won, and other bytes are there"),
            ),
            ([], _) => (
                Verdict::Limited,
                format!("none of {racers} is told that it won"),
            ),
            (winners, _) => (
                Verdict::Limited,
                format!("{} of {racers} are told that they won", winners.len()),
            ),
        })
    }

    /// "Only if it is still this version", when it is not.
    pub(super) async fn stale_if_match(&self) -> Found {
        let name = "update";
        let stale = UpdateVersion::from(self.put(name, &FIRST).await?);
        let fresh = UpdateVersion::from(self.put(name, &SECOND).await?);
        if stale.e_tag.is_none() && stale.version.is_none() {
            return Ok((Verdict::NotOffered, "the store names no versions".into()));
        }
        let third = Bytes::from_static(b"the third");
        let refused = said(self.put_if(name, &third, PutMode::Update(stale)).await?);
        match refused {
            Said::Refused => {}
            Said::Accepted => {
                let found = "a stale version is accepted: the condition is ignored";
                return Ok((Verdict::Limited, found.into()));
            }
            Said::NotOffered => {
                return Ok((
                    Verdict::NotOffered,
                    "the store has no such condition".into(),
                ));
            }
            Said::Other(error) => return self.unwanted(name, error),
        }
        if self.get(name).await? != SECOND {
            let found = "a stale version is refused, and yet the object was replaced";
            return Ok((Verdict::Failed, found.into()));
        }
        Ok(
            match said(self.put_if(name, &third, PutMode::Update(fresh)).await?) {
                Said::Accepted => (
                    Verdict::Good,
                    "a stale version is refused, the right one taken".into(),
                ),
                _ => (
                    Verdict::Limited,
                    "the right version is refused as well".into(),
                ),
            },
        )
    }

    /// "Only if it is this version", when there is no object at all.
    pub(super) async fn if_match_on_missing(&self) -> Found {
        let version = UpdateVersion::from(self.put("other", &FIRST).await?);
        if version.e_tag.is_none() && version.version.is_none() {
            return Ok((Verdict::NotOffered, "the store names no versions".into()));
        }
        let name = "never";
        let answer = said(self.put_if(name, &SECOND, PutMode::Update(version)).await?);
        let made = self.head(name).await?.is_some();
        Ok(match (answer, made) {
            (Said::Refused, false) => (Verdict::Good, "refused".into()),
            (Said::NotOffered, _) => (
                Verdict::NotOffered,
                "the store has no such condition".into(),
            ),
            (Said::Other(error), _) => return self.unwanted(name, error),
            (Said::Refused, true) => (
                Verdict::Failed,
                "refused, and yet the object is there".into(),
            ),
            (Said::Accepted, _) => (
                Verdict::Limited,
                "accepted: the condition is ignored where there is nothing to compare".into(),
            ),
        })
    }

    /// An answer that is neither yes nor no.
    fn unwanted(&self, name: &str, error: Error) -> Found {
        Err(self.repository.classify("put", &self.name_of(name), &error))
    }
}
