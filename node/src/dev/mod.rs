//! dev/mod
