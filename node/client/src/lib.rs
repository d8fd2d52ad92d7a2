//! confman-client
