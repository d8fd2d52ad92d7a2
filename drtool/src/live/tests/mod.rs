//! Stories of clusters as their nodes tell them.

pub(crate) mod kit;
mod status;
