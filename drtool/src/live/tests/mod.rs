//! Stories of clusters as their nodes tell them.

mod kit;
mod status;
