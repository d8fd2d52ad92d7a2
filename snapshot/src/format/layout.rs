//! The fixed parts of a `.snap` file: header and footer, to bytes and back.

use prost::Message;

use super::limits::{FORMAT_VERSION, HEADER_BODY_MAX, MANIFEST_BYTES_MAX};
use crate::Digest;
use crate::error::SnapshotError;
use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId};

const MAGIC: [u8; 8] = *b"CONFSNAP";
const END_MAGIC: [u8; 8] = *b"PANSFNOC";
/// Magic, version and length of the body; the body and its CRC32 follow.
const HEADER_START_BYTES: usize = 16;
/// The most that a header takes.
pub(crate) const HEADER_BYTES_MAX: u64 = HEADER_START_BYTES as u64 + HEADER_BODY_MAX as u64 + 4;
/// The footer: place and sums of the manifest, version, CRC32, magic.
pub(crate) const FOOTER_BYTES: u64 = 68;

/// Whose snapshot this is, for whoever finds the file without its name.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Header {
    #[prost(message, required, tag = "1")]
    pub(crate) id: SnapshotId,
    #[prost(message, required, tag = "2")]
    pub(crate) group: GroupId,
    #[prost(message, required, tag = "3")]
    pub(crate) cluster: ClusterId,
}

/// Where the manifest lies and what it sums to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) manifest_offset: u64,
    pub(crate) manifest_len: u64,
    pub(crate) manifest_crc32: u32,
    pub(crate) manifest_blake3: Digest,
}

pub(crate) fn encode_header(header: &Header) -> Vec<u8> {
    let body = header.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_START_BYTES + body.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The header at the start of `bytes`, and its length.
pub(crate) fn decode_header(object: &str, bytes: &[u8]) -> Result<(Header, u64), SnapshotError> {
    let damaged = |detail: String| SnapshotError::damaged(object, detail);
    let mut rest = bytes;
    if take::<8>(&mut rest) != Some(MAGIC) {
        return Err(damaged("it does not start with CONFSNAP".to_owned()));
    }
    let short = || damaged("its header is cut short".to_owned());
    let version = u32::from_le_bytes(take(&mut rest).ok_or_else(short)?);
    let body_len = u32::from_le_bytes(take(&mut rest).ok_or_else(short)?);
    if body_len > HEADER_BODY_MAX {
        return Err(damaged(format!(
            "its header claims {body_len} bytes, the limit is {HEADER_BODY_MAX}"
        )));
    }
    let (body, mut rest) = rest.split_at_checked(body_len as usize).ok_or_else(short)?;
    let crc = u32::from_le_bytes(take(&mut rest).ok_or_else(short)?);
    let summed = HEADER_START_BYTES + body.len();
    if crc != crc32fast::hash(&bytes[..summed]) {
        return Err(damaged("its header does not match its CRC32".to_owned()));
    }
    check_version(object, version)?;
    let header =
        Header::decode(body).map_err(|e| damaged(format!("its header does not decode: {e}")))?;
    Ok((header, summed as u64 + 4))
}

pub(crate) fn encode_footer(footer: &Footer) -> [u8; FOOTER_BYTES as usize] {
    let mut bytes = Vec::with_capacity(FOOTER_BYTES as usize);
    bytes.extend_from_slice(&footer.manifest_offset.to_le_bytes());
    bytes.extend_from_slice(&footer.manifest_len.to_le_bytes());
    bytes.extend_from_slice(&footer.manifest_crc32.to_le_bytes());
    bytes.extend_from_slice(footer.manifest_blake3.as_bytes());
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&END_MAGIC);
    let mut fixed = [0; FOOTER_BYTES as usize];
    fixed.copy_from_slice(&bytes);
    fixed
}

/// The footer of an object of `object_bytes`, with its numbers checked against that size and the limits.
pub(crate) fn decode_footer(
    object: &str,
    object_bytes: u64,
    bytes: &[u8],
) -> Result<Footer, SnapshotError> {
    let damaged = |detail: &str| SnapshotError::damaged(object, detail);
    let mut rest = bytes;
    let mut parse = || -> Option<(Footer, u32, u32, [u8; 8])> {
        let footer = Footer {
            manifest_offset: u64::from_le_bytes(take(&mut rest)?),
            manifest_len: u64::from_le_bytes(take(&mut rest)?),
            manifest_crc32: u32::from_le_bytes(take(&mut rest)?),
            manifest_blake3: Digest(take(&mut rest)?),
        };
        let version = u32::from_le_bytes(take(&mut rest)?);
        let crc = u32::from_le_bytes(take(&mut rest)?);
        Some((footer, version, crc, take(&mut rest)?))
    };
    let (footer, version, crc, magic) =
        parse().ok_or_else(|| damaged("its footer is cut short"))?;
    if !rest.is_empty() || magic != END_MAGIC {
        return Err(damaged(
            "it does not end with a footer: it is cut short, or bytes were added",
        ));
    }
    if crc != crc32fast::hash(&bytes[..bytes.len() - 12]) {
        return Err(damaged("its footer does not match its CRC32"));
    }
    check_version(object, version)?;
    if footer.manifest_len > MANIFEST_BYTES_MAX {
        return Err(SnapshotError::TooLarge {
            object: object.to_owned(),
            what: "the manifest",
            found: footer.manifest_len,
            limit: MANIFEST_BYTES_MAX,
        });
    }
    let end = footer
        .manifest_offset
        .checked_add(footer.manifest_len)
        .and_then(|end| end.checked_add(FOOTER_BYTES));
    if end != Some(object_bytes) {
        return Err(damaged("its footer does not fit its size"));
    }
    Ok(footer)
}

fn check_version(object: &str, found: u32) -> Result<(), SnapshotError> {
    match found {
        FORMAT_VERSION => Ok(()),
        0 => Err(SnapshotError::damaged(object, "its format version is 0")),
        _ => Err(SnapshotError::NewerVersion {
            object: object.to_owned(),
            found,
            newest: FORMAT_VERSION,
        }),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
