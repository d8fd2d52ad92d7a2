//! A running cluster, over HTTP.
//!
//! - `account` asks every node, `judge` puts together what they say (pure), `lives` says which of them are of the living
//!   cluster, `report` is the document, `show` the text of it.
//! - `status`: that command; `member`: who is a member.
//!
//! Promises: whose view a line is stands in the line; what is not known is called unknown; nothing of a cluster can steer
//! a terminal.
//!
//! Does not: open a directory, or know how a node does what it is asked. Of the store, where one is named, `status` asks when
//! the last drill was ([`crate::drill`]), and nothing else.

pub(crate) mod account;
mod codes;
pub mod create;
pub(crate) mod judge;
mod lives;
pub(crate) mod member;
pub(crate) mod report;
mod show;
pub(crate) mod status;
pub(crate) mod words;

pub use codes::CODES;

#[cfg(test)]
pub(crate) mod tests;
