//! confman-bootstrap
