//! What a group knows about a snapshot in the store: committed as `SnapshotVerified`, so every replica has it.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::format::Codec;
use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId, ModelError, Position};

/// A verified snapshot: read back from the store and decoded to the end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRecord {
    /// Its name.
    #[prost(message, required, tag = "1")]
    pub id: SnapshotId,
    /// The group whose state it holds.
    #[prost(message, required, tag = "2")]
    pub group: GroupId,
    /// The cluster that wrote it.
    #[prost(string, tag = "3")]
    pub cluster_uuid: String,
    /// The incarnation that wrote it.
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
    /// The last log entry that is in it.
    #[prost(message, required, tag = "5")]
    pub position: Position,
    /// The object that holds it, relative to the store's prefix.
    #[prost(string, tag = "6")]
    pub object: String,
    /// The size of that object in bytes.
    #[prost(uint64, tag = "7")]
    pub object_bytes: u64,
    /// BLAKE3 of its manifest, which in turn names the hash of every chunk.
    #[prost(bytes = "vec", tag = "8")]
    #[serde(with = "digest_text")]
    pub manifest_blake3: Vec<u8>,
    /// Digest of the state hash at that position.
    #[prost(bytes = "vec", tag = "9")]
    #[serde(with = "digest_text")]
    pub state_hash: Vec<u8>,
    /// How many records it holds.
    #[prost(uint64, tag = "10")]
    pub records: u64,
    /// Bytes of all records before compression.
    #[prost(uint64, tag = "11")]
    pub raw_bytes: u64,
    /// When it was built, in microseconds since 1970 UTC, by the builder's clock: shown, never decided by.
    #[prost(int64, tag = "12")]
    pub created_us: i64,
    /// The codec of the chunks it wrote.
    #[prost(enumeration = "Codec", tag = "13")]
    #[serde(with = "codec_text")]
    pub codec: i32,
    /// The id of the node that built it.
    #[prost(uint64, tag = "14")]
    pub builder_node: u64,
    /// How long building, uploading and verifying took, in microseconds.
    #[prost(uint64, tag = "15")]
    pub took_us: u64,
}

impl SnapshotRecord {
    /// Whether a record that came from disk, a peer or the log is one that this package could have made.
    pub fn check(&self) -> Result<(), ModelError> {
        self.group.check()?;
        self.cluster().check()?;
        Digest::from_slice(&self.manifest_blake3)?;
        Digest::from_slice(&self.state_hash)?;
        let same = self.id.index == self.position.index
            && self.id.term == self.position.term
            && self.id.incarnation == self.incarnation;
        if !same {
            return Err(ModelError::new(
                "snapshot record",
                self.id.to_string(),
                "an id that names its own position",
            ));
        }
        if self.object != crate::paths::snapshot(&self.group, &self.id) {
            return Err(ModelError::new(
                "snapshot record",
                self.object.clone(),
                "the object of its own id",
            ));
        }
        Ok(())
    }

    /// The cluster and incarnation that wrote it.
    pub fn cluster(&self) -> ClusterId {
        ClusterId::new(self.cluster_uuid.clone(), self.incarnation)
    }

    /// The digest of the state hash; zeros if the record is malformed.
    pub fn state_digest(&self) -> Digest {
        Digest::from_slice(&self.state_hash).unwrap_or_default()
    }

    /// The hash of the manifest; zeros if the record is malformed.
    pub fn manifest_digest(&self) -> Digest {
        Digest::from_slice(&self.manifest_blake3).unwrap_or_default()
    }

    /// How long it took to build, upload and verify, in seconds.
    pub fn seconds(&self) -> f64 {
        self.took_us as f64 / 1e6
    }
}

mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map_err(serde::de::Error::custom)
    }
}

mod codec_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::format::Codec;

    pub(super) fn serialize<S: Serializer>(codec: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        match Codec::try_from(*codec) {
            Ok(codec) => serializer.serialize_str(codec.name()),
            Err(_) => serializer.serialize_str(&format!("codec {codec}")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<Codec>()
            .map(|codec| codec as i32)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn record() -> SnapshotRecord {
        let id = SnapshotId {
            index: 7,
            incarnation: 1,
            term: 3,
            nonce: 9,
        };
        let group = GroupId::config(2);
        SnapshotRecord {
            id,
            object: crate::paths::snapshot(&group, &id),
            group,
            cluster_uuid: "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70".to_owned(),
            incarnation: 1,
            position: Position::new(3, 1, 7),
            object_bytes: 100,
            manifest_blake3: vec![1; 32],
            state_hash: vec![2; 32],
            records: 5,
            raw_bytes: 200,
            created_us: 1,
            codec: Codec::Zstd as i32,
            builder_node: 1,
            took_us: 1_500_000,
        }
    }

    #[test]
    fn a_record_survives_disk_and_json() {
        let record = record();
        record.check().unwrap();
        assert_eq!(
            SnapshotRecord::decode(record.encode_to_vec().as_slice()).unwrap(),
            record
        );
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(
            json["id"],
            "00000000000000000007-0000000001-0000000003-00000009"
        );
        assert_eq!(json["group"], "config/2");
        assert_eq!(json["codec"], "zstd");
        assert_eq!(json["clusterUuid"], record.cluster_uuid);
        assert_eq!(json["stateHash"], "02".repeat(32));
        assert_eq!(
            serde_json::from_value::<SnapshotRecord>(json).unwrap(),
            record
        );
    }

    #[test]
    fn i19_a_record_that_nobody_here_made_is_refused() {
        type Change = fn(&mut SnapshotRecord);
        let changes: [Change; 7] = [
            |r| *r = SnapshotRecord::default(),
            |r| r.object = "../../etc/passwd".to_owned(),
            |r| r.cluster_uuid = "x".to_owned(),
            |r| r.id.term += 1,
            |r| r.incarnation += 1,
            |r| r.state_hash.clear(),
            |r| r.manifest_blake3.push(0),
        ];
        for change in changes {
            let mut wrong = record();
            change(&mut wrong);
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
