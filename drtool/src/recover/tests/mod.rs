//! Collections that a cluster could leave, and what is planned from them.

mod golden;
mod kit;
mod properties;
mod refusals;
