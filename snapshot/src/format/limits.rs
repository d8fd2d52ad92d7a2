//! What this program will write and read. Checked before memory is set aside.

/// Newest version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Largest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Largest record (key and value), in bytes.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Bytes of records after which the writer closes a chunk, at most.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Largest chunk before compression: the record that closes a chunk may reach over its end.
pub const CHUNK_RAW_MAX: u64 = (CHUNK_BYTES_MAX + RECORD_BYTES_MAX + 64) as u64;
/// Largest chunk as stored: bytes that do not compress grow a little.
pub const CHUNK_STORED_MAX: u64 = CHUNK_RAW_MAX + CHUNK_RAW_MAX / 64 + 1024;
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Most chunks in a manifest: 4 TiB of state in chunks of 4 MiB.
pub const CHUNKS_MAX: usize = 1 << 20;
/// Smallest and largest encoded [`super::ChunkEntry`]; the smallest holds a BLAKE3 and little else.
pub(crate) const CHUNK_ENTRY_BYTES: std::ops::RangeInclusive<u64> =
    40..=(2 * KEY_BYTES_MAX as u64 + 1024);
/// Largest encoded membership, in bytes.
pub(crate) const MEMBERSHIP_BYTES_MAX: u64 = 1 << 20;
/// Largest header body, in bytes.
pub(crate) const HEADER_BODY_MAX: u32 = 4096;
