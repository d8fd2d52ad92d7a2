//! confman-config
