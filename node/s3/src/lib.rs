//! confman-dev-s3
