//! Nodes in containers on a network that fails: one file per subject.
//!
//! All but [`files`] are ignored, by name, unless they are asked for: they need Docker and the images that `.ci/containers` makes, which runs
//! them. Each has a cluster and a network of its own. After every fault the history of the clients is judged: nothing acknowledged is lost or
//! doubled, no linearizable read was stale, and all replicas are the same.

mod files;
mod five_nodes;
mod network;
mod processes;
mod store;
mod upgrade;
