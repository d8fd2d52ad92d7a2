//! confman-store
