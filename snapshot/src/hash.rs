//! The two plain hashes that other packages need, so that `blake3` is named here and in `confman-lthash` only.

use crate::Digest;

/// FNV-1a of 64 bits: which group a namespace lives in. Not for checking anything.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The BLAKE3 hash of a whole value.
pub fn value_hash(value: &[u8]) -> [u8; 32] {
    *blake3::hash(value).as_bytes()
}

/// [`value_hash`] of a value that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct ValueHasher(blake3::Hasher);

impl ValueHasher {
    /// Nothing taken in yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece in.
    pub fn update(&mut self, piece: &[u8]) -> &mut Self {
        self.0.update(piece);
        self
    }

    /// The hash of all pieces so far.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// The same as [`ValueHasher::finish`], as a [`Digest`].
    pub fn digest(&self) -> Digest {
        Digest(self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which group a namespace lives in follows from these: they never change.
    #[test]
    fn fnv1a64_is_the_published_one() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = ValueHasher::new();
        hasher.update(b"ab").update(b"").update(b"c");
        assert_eq!(hasher.finish(), value_hash(b"abc"));
        assert_eq!(hasher.digest().as_bytes(), &value_hash(b"abc"));
    }
}
