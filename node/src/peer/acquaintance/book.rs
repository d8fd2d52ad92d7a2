//! The processes that are known, by node id, and which of two that claim one id is heard. Pure.

use std::collections::{HashMap, VecDeque};

use super::{Rejected, older, second, taken};

/// How many boots of one node whose place was taken are remembered.
const GONE_MAX: usize = 64;

/// A process, as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) boot: u64,
    addr: String,
    /// Boots before it: none of them speaks again.
    gone: VecDeque<u64>,
    /// What is missing in its data directory: it is not spoken to.
    pub(super) older: Option<String>,
}

/// What a process that introduces itself is to the one that is known under its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// It is the known one, or there is none.
    Welcome,
    /// There is a known one: it takes its place unless that one lives, at this address.
    Unless { boot: u64, addr: String },
    /// Its own place was taken before.
    Gone { addr: String },
}

/// Why a message is not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unheard {
    /// Its sender has not introduced itself.
    Unknown,
    /// Its sender is not the node that it says it is.
    Rejected(Rejected),
}

/// The known processes, by node id.
#[derive(Debug, Default)]
pub(super) struct Book {
    known: HashMap<u64, Known>,
}

impl Book {
    pub(super) fn get(&self, id: u64) -> Option<&Known> {
        self.known.get(&id)
    }

    pub(super) fn judge(&self, id: u64, boot: u64) -> Newcomer {
        match self.known.get(&id) {
            None => Newcomer::Welcome,
            Some(known) if known.boot == boot => Newcomer::Welcome,
            Some(known) if known.gone.contains(&boot) => Newcomer::Gone {
                addr: known.addr.clone(),
            },
            Some(known) => Newcomer::Unless {
                boot: known.boot,
                addr: known.addr.clone(),
            },
        }
    }

    pub(super) fn enter(&mut self, id: u64, boot: u64, addr: &str, older: Option<String>) {
        let mut gone = VecDeque::new();
        if let Some(before) = self.known.remove(&id) {
            gone = before.gone;
            if before.boot != boot {
                gone.push_back(before.boot);
            }
            if gone.len() > GONE_MAX {
                gone.pop_front();
            }
        }
        let known = Known {
            boot,
            addr: addr.to_owned(),
            gone,
            older,
        };
        self.known.insert(id, known);
    }

    /// Whether a message of that boot may be heard.
    pub(super) fn hears(&self, id: u64, boot: u64) -> Result<(), Unheard> {
        match self.known.get(&id) {
            Some(known) if known.boot == boot => match &known.older {
                None => Ok(()),
                Some(missing) => Err(Unheard::Rejected(older(id, missing))),
            },
            Some(known) if known.gone.contains(&boot) => {
                Err(Unheard::Rejected(second(taken(id, &known.addr))))
            }
            _ => Err(Unheard::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i14_a_process_whose_place_was_taken_is_not_heard_again() {
        let mut book = Book::default();
        assert_eq!(book.judge(2, 10), Newcomer::Welcome);
        assert_eq!(
            book.hears(2, 10),
            Err(Unheard::Unknown),
            "not before it is introduced"
        );
        book.enter(2, 10, "a:1", None);
        assert_eq!(book.hears(2, 10), Ok(()));
        // A restart: the process before it must not live.
        let known = Newcomer::Unless {
            boot: 10,
            addr: "a:1".to_owned(),
        };
        assert_eq!(book.judge(2, 11), known);
        assert_eq!(book.hears(2, 11), Err(Unheard::Unknown));
        book.enter(2, 11, "a:1", None);
        assert_eq!(book.hears(2, 11), Ok(()));
        // The one before it lives after all.
        let rejected = Err(Unheard::Rejected(second(taken(2, "a:1"))));
        assert_eq!(book.hears(2, 10), rejected);
        let gone = Newcomer::Gone {
            addr: "a:1".to_owned(),
        };
        assert_eq!(book.judge(2, 10), gone);
        // Another node's processes are another matter.
        assert_eq!(book.judge(3, 10), Newcomer::Welcome);
    }

    #[test]
    fn restarts_without_number_are_no_burden() {
        let mut book = Book::default();
        for boot in 1..=1000 {
            book.enter(2, boot, "a:1", None);
        }
        assert_eq!(book.known[&2].gone.len(), GONE_MAX);
        assert_eq!(book.hears(2, 1000), Ok(()));
        assert!(matches!(book.hears(2, 999), Err(Unheard::Rejected(_))));
        assert_eq!(
            book.hears(2, 1),
            Err(Unheard::Unknown),
            "long forgotten: it would have to introduce itself"
        );
    }

    #[test]
    fn being_introduced_twice_is_nothing_new() {
        let mut book = Book::default();
        book.enter(2, 10, "a:1", None);
        book.enter(2, 10, "b:1", None);
        assert_eq!(book.known[&2].addr, "b:1");
        assert!(book.known[&2].gone.is_empty());
    }

    #[test]
    fn d08_an_older_directory_is_not_heard_and_a_later_process_may_be() {
        let mut book = Book::default();
        book.enter(2, 10, "a:1", Some("it voted".to_owned()));
        let rejected = Err(Unheard::Rejected(older(2, "it voted")));
        assert_eq!(book.hears(2, 10), rejected);
        book.enter(2, 11, "a:1", None);
        assert_eq!(book.hears(2, 11), Ok(()));
    }
}
