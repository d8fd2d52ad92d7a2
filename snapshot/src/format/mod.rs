//! The `.snap` format: header, chunks, manifest, footer.
//!
//! (head completed below)

mod codec;
mod layout;
mod manifest;
mod reader;
mod stream;
mod writer;

pub use codec::Codec;
pub use manifest::{ChunkEntry, Manifest};
pub use reader::SnapshotReader;
pub use stream::RecordStream;
pub use writer::{WriteOptions, write_snapshot};
