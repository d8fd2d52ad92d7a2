//! The object stores that a test can have: memory, a folder, the S3 server of `confman dev`, and S3 servers that others wrote.
//!
//! Rooms:
//! - [`place`]: where a store is, and [`place::on_every_store`], which makes one test for each;
//! - `conformance`: every store does what a repository promises;
//! - `claims`: who owns a prefix;
//! - `access`: credentials, and stores that are not there;
//! - `faults`: a store that fails by script, in front of each of them;
//! - `policies`: what a node, a reader and a collector may do where a server enforces it;
//! - `tls`: an authority of one's own, and a store that wants to see a certificate.
//!
//! The servers of others are named by variables, `http://host:port/bucket` each: `STORE_TEST_MOTO`, `STORE_TEST_SEAWEEDFS`, and
//! `STORE_TEST_OTHER` for any other one (MinIO, Ceph, S3 itself), with keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Their
//! tests are ignored, by name, unless they are asked for; `.ci/stores` starts moto and SeaweedFS and asks for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod place;

mod access;
mod claims;
mod conformance;
mod faults;
mod policies;
mod tls;
