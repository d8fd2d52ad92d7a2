//! The state hash: one hash over all records of a group that follows every change for almost nothing.
//!
//! A lattice (homomorphic) hash: each record is stretched by BLAKE3 to 1024 numbers of 16 bits, and the hash of a
//! set of records is the sum of theirs, number by number, modulo 2^16. Adding a record adds, removing one
//! subtracts, and the order does not matter. Two states are equal when their hashes are, short of an attack that
//! costs more than 2^200 steps at these parameters.
//!
//! Source: M. Bellare, D. Micciancio, "A New Paradigm for Collision-Free Hashing: Incrementality at Reduced Cost"
//! (EUROCRYPT 1997), and K. Lewi, W. Kim, I. Maykov, S. Weis, "Securing Update Propagation with Homomorphic
//! Hashing" (2019), whose `lthash16` uses the same lattice with BLAKE2.
//!
//! Promises: `(key, value)` is unambiguous (the key's length goes first); `remove` undoes `add` exactly; the hash
//! of no records is all zeros. It does not detect that a record was added 65,536 times, nor that one was removed
//! that never was there: the caller keeps a *set* of records.
//!
//! A package of its own, so that this loop over every record is optimized in debug builds too, without all else of a snapshot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Size of a [`StateHash`] in bytes.
pub const STATE_HASH_BYTES: usize = 2048;
const LANES: usize = STATE_HASH_BYTES / 2;
/// Sets these hashes apart from every other use of BLAKE3.
const DOMAIN: &[u8; 32] = b"confman state hash, lthash16, v1";

/// Why bytes or text are not the hash that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?} is not valid: expected {expected}")]
pub struct NotAHash {
    /// What was being read, as a noun.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl NotAHash {
    fn new(what: &'static str, found: impl Into<String>, expected: &'static str) -> Self {
        Self {
            what,
            found: found.into(),
            expected,
        }
    }
}

/// The lattice hash of a set of records.
#[derive(Clone, PartialEq, Eq)]
pub struct StateHash(Box<[u16; LANES]>);

impl StateHash {
    /// The hash of no records.
    pub fn new() -> Self {
        Self(Box::new([0; LANES]))
    }

    /// Takes a record in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let stretched = stretch(key, value);
        for (lane, pair) in self.0.iter_mut().zip(stretched.as_chunks::<2>().0) {
            *lane = lane.wrapping_add(u16::from_le_bytes(*pair));
        }
    }

    /// Takes a record out that was added before, with exactly this value.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        let stretched = stretch(key, value);
        for (lane, pair) in self.0.iter_mut().zip(stretched.as_chunks::<2>().0) {
            *lane = lane.wrapping_sub(u16::from_le_bytes(*pair));
        }
    }

    /// Takes in all records of another set that shares none with this one.
    pub fn merge(&mut self, other: &Self) {
        for (lane, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_add(*theirs);
        }
    }

    /// The whole hash, as it is stored so that it can be carried on.
    pub fn to_bytes(&self) -> [u8; STATE_HASH_BYTES] {
        let mut bytes = [0; STATE_HASH_BYTES];
        for (pair, lane) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(self.0.iter()) {
            *pair = lane.to_le_bytes();
        }
        bytes
    }

    /// The hash that [`StateHash::to_bytes`] gave. Any 2048 bytes are a hash: whoever stores them guards them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAHash> {
        if bytes.len() != STATE_HASH_BYTES {
            return Err(NotAHash::new(
                "state hash",
                format!("{} bytes", bytes.len()),
                "2048 bytes",
            ));
        }
        let mut hash = Self::new();
        for (lane, pair) in hash.0.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *lane = u16::from_le_bytes(*pair);
        }
        Ok(hash)
    }

    /// 32 bytes that stand for the hash where it is only shown and compared.
    pub fn digest(&self) -> Digest {
        Digest(*blake3::hash(&self.to_bytes()).as_bytes())
    }
}

impl Default for StateHash {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({})", self.digest())
    }
}

fn stretch(key: &[u8], value: &[u8]) -> [u8; STATE_HASH_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(DOMAIN);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut bytes = [0; STATE_HASH_BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A BLAKE3 hash: of a [`StateHash`], a manifest, a value. Written as 64 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of the state hash of no records at all.
    pub fn empty() -> Self {
        StateHash::new().digest()
    }

    /// The bytes of a digest as they stand in a stored message.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NotAHash> {
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|_| NotAHash::new("digest", format!("{} bytes", bytes.len()), "32 bytes"))?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes as a stored message takes them.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| NotAHash::new("digest", text, "64 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn hash_of(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> StateHash {
        let mut hash = StateHash::new();
        records.iter().for_each(|(key, value)| hash.add(key, value));
        hash
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn i2_any_history_that_leads_to_a_state_has_the_hash_of_that_state(
            changes in prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..3), prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..60),
        ) {
            let mut state = BTreeMap::new();
            let mut hash = StateHash::new();
            for (key, value) in changes {
                let before = match value {
                    Some(value) => {
                        hash.add(&key, &value);
                        state.insert(key.clone(), value)
                    }
                    None => state.remove(&key),
                };
                if let Some(before) = before {
                    hash.remove(&key, &before);
                }
                prop_assert_eq!(&hash, &hash_of(&state));
            }
            prop_assert_eq!(StateHash::from_bytes(&hash.to_bytes()).unwrap(), hash);
        }
    }

    #[test]
    fn key_and_value_are_told_apart() {
        let of = |pairs: &[(&[u8], &[u8])]| {
            let mut hash = StateHash::new();
            pairs.iter().for_each(|(key, value)| hash.add(key, value));
            hash.digest()
        };
        assert_ne!(of(&[(b"ab", b"c")]), of(&[(b"a", b"bc")]));
        assert_ne!(of(&[(b"a", b"")]), of(&[(b"", b"a")]));
        assert_ne!(
            of(&[(b"a", b"1"), (b"b", b"2")]),
            of(&[(b"a", b"2"), (b"b", b"1")])
        );
        assert_ne!(of(&[(b"", b"")]), Digest::empty());
    }

    #[test]
    fn merged_parts_are_the_whole() {
        let (mut a, mut b, mut both) = (StateHash::new(), StateHash::new(), StateHash::new());
        a.add(b"a", b"1");
        b.add(b"b", b"2");
        both.add(b"b", b"2");
        both.add(b"a", b"1");
        a.merge(&b);
        assert_eq!(a, both);
    }

    /// These digests stand in snapshots and logs: they never change.
    #[test]
    fn p_digests_stay_what_they_are() {
        assert_eq!(
            Digest::empty().to_string(),
            "be2a8de3dcf46c94ce85cdc8e07ac308f4d8a95490d956c38d780fd610db0813"
        );
        let mut hash = StateHash::new();
        hash.add(b"key", b"value");
        assert_eq!(
            hash.digest().to_string(),
            "125bbcd3f0a3099addd561455ffa521f441e61729b24ad65f5e0c20a35c79e65"
        );
        assert_eq!(hash.digest(), hash.digest().to_string().parse().unwrap());
        assert!("12".parse::<Digest>().is_err() && StateHash::from_bytes(&[0; 2047]).is_err());
    }
}
