//! confman-snapshot
