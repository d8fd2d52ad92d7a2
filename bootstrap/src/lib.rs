//! confman-bootstrap: what a starting node does, and how an empty one gets its state back.
//!
//! | module | for |
//! |---|---|
//! | [`facts`] | what a starting node knows: its disk, its peers, the store |
//! | [`decide`] | the pure decision: start, fence, rejoin, form, wait or refuse, each with its reason |

pub mod decide;
pub mod facts;
