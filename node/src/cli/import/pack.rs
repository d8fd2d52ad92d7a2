//! Small values, packed into batches. Pure.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use confman_client::wire::{BATCH_BYTES_MAX, BatchItem, BatchOp, BatchRequest, ValueType};

/// Fewer than the node takes: a batch shares its place with others, and ends sooner.
const ITEMS_MAX: usize = 500;
const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;
/// Member names, quotes and escapes of an item.
const ITEM_BYTES_OVERHEAD: usize = 200;

/// A value on its way.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) item: BatchItem,
}

impl Packed {
    /// The bytes are stored exactly, so they go as base64, whatever they are.
    pub(super) fn new(
        path: PathBuf,
        namespace: String,
        key: String,
        value_type: ValueType,
        bytes: &[u8],
    ) -> Self {
        Self {
            path,
            bytes: bytes.len() as u64,
            item: BatchItem {
                op: BatchOp::Put,
                namespace,
                key,
                value: None,
                value_base64: Some(BASE64.encode(bytes)),
                value_type: Some(value_type),
                skip_unchanged: true,
            },
        }
    }

    fn body_bytes(&self) -> usize {
        // A control character in a name takes six bytes as an escape; names have none, but quotes double.
        let names = 2 * (self.item.namespace.len() + self.item.key.len());
        self.item.value_base64.as_ref().map_or(0, String::len) + names + ITEM_BYTES_OVERHEAD
    }
}

/// A batch in the making.
#[derive(Debug, Default)]
pub(super) struct Packer {
    items: Vec<Packed>,
    body_bytes: usize,
}

impl Packer {
    /// Takes an item; gives the batch that was full before it.
    pub(super) fn push(&mut self, item: Packed) -> Option<Vec<Packed>> {
        let bytes = item.body_bytes();
        let full = self.items.len() >= ITEMS_MAX || self.body_bytes + bytes > BODY_BYTES_MAX;
        let done = full.then(|| self.take()).flatten();
        self.items.push(item);
        self.body_bytes += bytes;
        done
    }

    /// What is there so far.
    pub(super) fn take(&mut self) -> Option<Vec<Packed>> {
        self.body_bytes = 0;
        (!self.items.is_empty()).then(|| std::mem::take(&mut self.items))
    }
}

/// The request for a batch.
pub(super) fn request(batch: &[Packed]) -> BatchRequest {
    BatchRequest {
        items: batch.iter().map(|packed| packed.item.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> Packed {
        Packed::new(
            "f".into(),
            "a\"b".repeat(40),
            "k".to_owned(),
            ValueType::Binary,
            &vec![0xff; bytes],
        )
    }

    fn pack(sizes: impl Iterator<Item = usize>) -> Vec<Vec<Packed>> {
        let mut packer = Packer::default();
        let mut batches: Vec<_> = sizes.filter_map(|size| packer.push(item(size))).collect();
        batches.extend(packer.take());
        batches
    }

    #[test]
    fn batches_stay_below_the_limits_and_lose_nothing() {
        let batches = pack((0..300).map(|n| (n * 7919) % (256 << 10)));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 300);
        for batch in &batches {
            assert!(batch.len() <= ITEMS_MAX);
            let body = serde_json::to_vec(&request(batch)).unwrap();
            assert!(body.len() <= BODY_BYTES_MAX + (512 << 10), "{}", body.len());
        }
        assert!(batches.len() > 3, "the size counts before the number");
        let small: Vec<_> = pack((0..1001).map(|_| 1)).iter().map(Vec::len).collect();
        assert_eq!(small, [500, 500, 1]);
    }
}
