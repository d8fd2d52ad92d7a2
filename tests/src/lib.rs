//! confman-tests
