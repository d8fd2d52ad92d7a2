//! Collections that a cluster could leave, and what is planned from them.

mod behind;
mod changes;
mod golden;
pub(crate) mod kit;
mod one_name;
mod properties;
mod refusals;
mod roles;
