//! One chunk: records to bytes, and bytes to proven records.
//!
//! Before compression a chunk is its records one after the other: length of key and length of value (u32, little
//! endian), key, value.

use bytes::Bytes;

use super::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
use super::{ChunkEntry, Codec};
use crate::StateHash;
use crate::view::Record;

const RECORD_HEAD_BYTES: usize = 8;

/// Collects records until they make a chunk.
#[derive(Debug, Default)]
pub(crate) struct ChunkBuilder {
    raw: Vec<u8>,
    records: u64,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
}

impl ChunkBuilder {
    /// Takes a record in; the caller has checked order and size.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.records == 0 {
            self.first_key = key.to_vec();
        }
        self.raw
            .extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.raw
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(key);
        self.raw.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.records += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// The chunk as it is stored and its entry for the manifest, at `offset` of the manifest's own object. The builder
    /// is empty again.
    pub(crate) fn finish(
        &mut self,
        codec: Codec,
        offset: u64,
    ) -> std::io::Result<(Vec<u8>, ChunkEntry)> {
        let stored = codec.compress(&self.raw)?;
        let entry = ChunkEntry {
            object: String::new(),
            offset,
            stored_len: stored.len() as u64,
            raw_len: self.raw.len() as u64,
            codec: codec as i32,
            crc32: crc32fast::hash(&stored),
            blake3: blake3::hash(&stored).as_bytes().to_vec(),
            records: self.records,
            first_key: std::mem::take(&mut self.first_key),
            last_key: std::mem::take(&mut self.last_key),
        };
        self.raw.clear();
        self.records = 0;
        Ok((stored, entry))
    }
}

/// A chunk's records and their part of the state hash.
#[derive(Debug)]
pub(crate) struct DecodedChunk {
    pub(crate) records: Vec<Record>,
    pub(crate) hash: StateHash,
}

/// Checks sums, decodes, checks everything that the entry says. The entry itself has been checked against the limits.
pub(crate) fn decode_chunk(entry: &ChunkEntry, stored: &Bytes) -> Result<DecodedChunk, String> {
    check_sums(entry, stored)?;
    let codec =
        Codec::try_from(entry.codec).map_err(|_| format!("unknown codec {}", entry.codec))?;
    let raw = codec.decompress(stored, entry.raw_len as usize)?;
    let records = parse_records(&raw)?;
    if records.len() as u64 != entry.records {
        return Err(format!(
            "{} records decoded, {} recorded",
            records.len(),
            entry.records
        ));
    }
    let first = records.first().map(|(key, _)| key.as_ref());
    let last = records.last().map(|(key, _)| key.as_ref());
    if first != Some(entry.first_key.as_slice()) || last != Some(entry.last_key.as_slice()) {
        return Err("its first and last keys are not those recorded".to_owned());
    }
    let mut hash = StateHash::new();
    for (key, value) in &records {
        hash.add(key, value);
    }
    Ok(DecodedChunk { records, hash })
}

pub(crate) fn check_sums(entry: &ChunkEntry, stored: &[u8]) -> Result<(), String> {
    if stored.len() as u64 != entry.stored_len {
        return Err(format!(
            "{} bytes read, {} recorded",
            stored.len(),
            entry.stored_len
        ));
    }
    if crc32fast::hash(stored) != entry.crc32 {
        return Err("its CRC32 does not match".to_owned());
    }
    if blake3::hash(stored).as_bytes().as_slice() != entry.blake3 {
        return Err("its BLAKE3 does not match".to_owned());
    }
    Ok(())
}

/// The records are parts of `raw`, and no copies: a chunk is one allocation and not one for each key and value, which one thread would make
/// and another free, and which an allocator would give back late.
fn parse_records(raw: &Bytes) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    let mut rest: &[u8] = raw;
    while !rest.is_empty() {
        let at = raw.len() - rest.len();
        let cut = || format!("the record at byte {at} is cut short");
        let (head, tail) = rest
            .split_first_chunk::<RECORD_HEAD_BYTES>()
            .ok_or_else(cut)?;
        let [k0, k1, k2, k3, v0, v1, v2, v3] = *head;
        let key_len = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
        let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if key_len > KEY_BYTES_MAX || key_len.saturating_add(value_len) > RECORD_BYTES_MAX {
            return Err(format!(
                "the record at byte {at} claims {key_len} + {value_len} bytes"
            ));
        }
        let (key, tail) = tail.split_at_checked(key_len).ok_or_else(cut)?;
        let (value, tail) = tail.split_at_checked(value_len).ok_or_else(cut)?;
        if records
            .last()
            .is_some_and(|(previous, _)| previous.as_ref() >= key)
        {
            return Err(format!(
                "the key of the record at byte {at} is not above the one before"
            ));
        }
        records.push((raw.slice_ref(key), raw.slice_ref(value)));
        rest = tail;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(records: &[(&[u8], &[u8])], codec: Codec) -> (Bytes, ChunkEntry) {
        let mut builder = ChunkBuilder::default();
        for (key, value) in records {
            builder.push(key, value);
        }
        let (stored, entry) = builder.finish(codec, 0).unwrap();
        (stored.into(), entry)
    }

    #[test]
    fn a_chunk_gives_back_its_records() {
        let (stored, entry) = chunk(
            &[(b"a", b"1"), (b"b", b""), (b"c", &[9; 3000])],
            Codec::Zstd,
        );
        let decoded = decode_chunk(&entry, &stored).unwrap();
        assert_eq!(decoded.records.len(), 3);
        assert_eq!(decoded.records[2], ("c".into(), vec![9; 3000].into()));
    }

    #[test]
    fn i6_the_records_of_a_chunk_are_parts_of_it_and_no_copies() {
        let (stored, entry) = chunk(&[(b"a", b"1"), (b"b", &[9; 3000])], Codec::None);
        let there = stored.as_ptr_range();
        for (key, value) in decode_chunk(&entry, &stored).unwrap().records {
            assert!(there.contains(&key.as_ptr()) && there.contains(&value.as_ptr()));
        }
    }

    #[test]
    fn i19_sums_that_match_do_not_excuse_records_that_do_not() {
        // X05: whoever can write the object can make every checksum right.
        let cases: [(&str, Vec<u8>); 4] = [
            (
                "not above",
                [record(b"b", b"1"), record(b"a", b"2")].concat(),
            ),
            (
                "not above",
                [record(b"a", b"1"), record(b"a", b"2")].concat(),
            ),
            ("cut short", record(b"a", b"12345")[..10].to_vec()),
            (
                "claims",
                [&u32::MAX.to_le_bytes()[..], &u32::MAX.to_le_bytes()[..]].concat(),
            ),
        ];
        for (expected, raw) in cases {
            let entry = ChunkEntry {
                stored_len: raw.len() as u64,
                raw_len: raw.len() as u64,
                codec: Codec::None as i32,
                crc32: crc32fast::hash(&raw),
                blake3: blake3::hash(&raw).as_bytes().to_vec(),
                records: 2,
                ..ChunkEntry::default()
            };
            let error = decode_chunk(&entry, &raw.into()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut builder = ChunkBuilder::default();
        builder.push(key, value);
        builder.raw
    }

    #[test]
    fn counts_and_key_range_must_be_those_recorded() {
        let (stored, entry) = chunk(&[(b"a", b"1"), (b"b", b"2")], Codec::None);
        for wrong in [
            ChunkEntry {
                records: 3,
                ..entry.clone()
            },
            ChunkEntry {
                first_key: b"0".to_vec(),
                ..entry.clone()
            },
            ChunkEntry {
                last_key: b"z".to_vec(),
                ..entry.clone()
            },
            ChunkEntry {
                codec: 9,
                ..entry.clone()
            },
            ChunkEntry {
                raw_len: entry.raw_len + 1,
                ..entry
            },
        ] {
            decode_chunk(&wrong, &stored).unwrap_err();
        }
    }
}
