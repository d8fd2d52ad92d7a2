//! The `.snap` format: one file that holds the state of one group at one position, and proves it.
//!
//! ```text
//! header    magic CONFSNAP, version, length, {group, cluster, id}, CRC32
//! chunks    sorted key ranges, each compressed by itself, one after the other without a gap
//! manifest  position, members, times, counts, state hash, every chunk with its place, sizes, codec, CRC32, BLAKE3
//! footer    68 bytes: where the manifest lies, its CRC32 and BLAKE3, version, CRC32, magic
//! ```
//!
//! Promises:
//! - every byte is covered by a checksum that was computed when it was written: a flipped bit, a missing or an
//!   added byte anywhere is found;
//! - lengths and counts are checked against limits before anything is allocated for them ([`limits`]);
//! - reading to the end is verifying: [`RecordStream::next_chunk`] answers `None` only after counts and state hash
//!   are those of the manifest;
//! - memory is a few chunks, whatever the size of the state;
//! - a manifest may refer to chunks in other objects, so that a later snapshot can reuse what did not change. The
//!   writer here writes whole snapshots only.
//!
//! Not here: stores, retries, names of objects (`repository`, `paths`), encryption.

mod chunk;
mod codec;
mod layout;
pub mod limits;
mod manifest;
mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use codec::Codec;
pub use manifest::{ChunkEntry, Manifest};
pub use reader::SnapshotReader;
pub use stream::RecordStream;
pub use writer::{WriteOptions, Written, write_snapshot};

pub(crate) use layout::FOOTER_BYTES;
