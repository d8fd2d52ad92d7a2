//! A cluster in containers: every node with an address, a network stack and a volume of its own, and an object store.
//!
//! A node's network belongs to a container beside it, its *pod*, which does nothing: the node joins the pod's network namespace. So a node
//! can be killed, wiped and upgraded and keeps its address, and faults of the network are made in the pod, with nft and tc, and outlive the
//! node. What clients ask goes through a port of this machine, so a node that is cut off from the others can still be asked.
//!
//! Not every kernel has netem, and without it tc can limit what is sent and cannot delay it. For delay the nodes know each other by
//! addresses in this process, which holds back what it passes on ([`crate::delay`]), by link, because it sees who connects.
//!
//! Rooms: `docker` (what is asked of the engine itself), [`lab`] (names, images, containers, the end of it all), [`network`] (what
//! happens to packets), [`store`] (SeaweedFS or MinIO), [`cluster`] (all of it together).
//!
//! Containers are made, started, frozen, asked and removed by `testcontainers`. What it has no words for (a volume, a label on a network,
//! kill -9) is asked of the engine through the client that it has.
//!
//! Promises: everything made here is named `confman-test-...`, carries the label `LABEL`, and is removed when its [`lab::Lab`] is
//! dropped, also when a test failed; `.ci/containers` removes by that label what a killed test left. Whatever is asked of Docker has a time limit.

pub mod cluster;
mod docker;
pub mod lab;
pub mod network;
pub mod store;
