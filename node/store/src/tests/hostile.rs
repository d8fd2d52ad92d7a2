//! I19: bytes that come from a disk or a network get an error, in bounded time and memory.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::kit::*;
use crate::records::*;
use crate::wire::{
    ENTRY_BYTES_MAX, WireError, decode_entry, decode_payload, encode_entry, encode_payload,
};

#[test]
fn i19_an_entry_that_is_too_large_is_not_decoded() {
    let huge = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    assert!(matches!(
        decode_entry(huge.clone()),
        Err(WireError::TooLarge { .. })
    ));
    assert!(matches!(
        decode_payload(huge),
        Err(WireError::TooLarge { .. })
    ));
}

#[test]
fn i19_a_membership_with_unknown_voters_is_refused() {
    use crate::wire::{PayloadKind, WirePayload};
    use confman_snapshot::model::{MembershipMessage, VoterSet};
    let message = MembershipMessage {
        voters: vec![VoterSet { ids: vec![1, 2] }],
        ..MembershipMessage::default()
    };
    let payload = WirePayload {
        kind: Some(PayloadKind::Membership(message)),
    };
    assert!(matches!(
        decode_payload(payload.encode_to_vec().into()),
        Err(WireError::Membership { .. })
    ));
}

#[test]
fn entries_go_round() {
    let good = [
        put("a", "k", "v"),
        delete("a", "k"),
        create("a"),
        stage(1, 2, b"x"),
        put_staged("a", "k", 1, b"x"),
    ];
    for (n, op) in good.into_iter().enumerate() {
        let entry = entry(n as u64, command(7, op));
        assert_eq!(decode_entry(encode_entry(entry.clone())).unwrap(), entry);
        assert_eq!(
            decode_payload(encode_payload(entry.payload.clone())).unwrap(),
            entry.payload
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i19_any_bytes_as_an_entry(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        drop(decode_entry(bytes.clone()));
        drop(decode_payload(bytes.clone()));
        drop(EntryRecord::decode(bytes.clone()));
        drop(AuditRecord::decode(bytes.clone()));
        drop(SnapshotFactRecord::decode(bytes.clone()));
        drop(IdempotencyRecord::decode(bytes));
    }

    #[test]
    fn i19_any_change_of_a_good_entry(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = encode_entry(entry(3, command(7, put_staged("a/b", "k", 1, b"value")))).to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        drop(decode_entry(bytes.into()));
    }

    #[test]
    fn i19_any_bytes_as_a_key(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = crate::keys::parse_entry(&bytes);
        let _ = crate::keys::parse_namespace(&bytes);
        let _ = crate::keys::parse_garbage(&bytes);
        let _ = crate::keys::parse_audit(&bytes);
        let _ = crate::keys::parse_audit_by_namespace(&bytes);
        drop(crate::keys::after_prefix(&bytes));
    }

    #[test]
    fn keys_go_round(namespace in "[a-z/]{1,8}", key in "[a-z0/]{1,8}", index in any::<u64>(), sub in any::<u32>()) {
        use crate::keys;
        let bytes = keys::entry(&namespace, &key);
        prop_assert_eq!(keys::parse_entry(&bytes), Some((namespace.as_str(), key.as_str())));
        let bytes = keys::namespace(&namespace);
        prop_assert_eq!(keys::parse_namespace(&bytes), Some(namespace.as_str()));
        let at = AuditRef { index, sub };
        prop_assert_eq!(keys::parse_audit(&keys::audit(at)), Some(at));
        prop_assert_eq!(keys::parse_audit_by_namespace(&keys::audit_by_namespace(&namespace, at)), Some(at));
        let due = (index >> 1) as i64;
        let bytes = keys::garbage(due, namespace.as_bytes());
        prop_assert_eq!(keys::parse_garbage(&bytes), Some((due, namespace.as_bytes())));
    }
}
