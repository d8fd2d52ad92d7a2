//! Who owns a prefix: one cluster, in its newest life, also where several come at once.

use confman_snapshot::repository::{Claim, ClusterObject, RepositoryOptions};
use confman_snapshot::{ClusterId, Kind, paths};

use crate::place::Place;

on_every_store! {
    o23_a_prefix_belongs_to_one_cluster_in_its_newest_life
    o23_of_clusters_that_claim_at_once_at_most_one_owns_the_prefix
}

fn object(uuid: &str, incarnation: u64) -> ClusterObject {
    ClusterObject {
        version: 1,
        cluster: ClusterId::new(uuid, incarnation),
        created_us: 1_790_000_000_123_456,
        created_by: "node1".to_owned(),
        nonce: "n".to_owned(),
        order: None,
        recovery: None,
    }
}

async fn o23_a_prefix_belongs_to_one_cluster_in_its_newest_life(place: Place) {
    let repository = &place.open().await;
    let (red, blue) = (
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8222-222222222222",
    );
    assert_eq!(repository.list_clusters().await.unwrap(), []);
    assert_eq!(
        repository.claim_cluster(&object(red, 1)).await.unwrap(),
        Claim::Ours
    );
    // Again, and by another node of the same cluster.
    let second = ClusterObject {
        created_by: "node2".to_owned(),
        ..object(red, 1)
    };
    assert_eq!(
        repository.claim_cluster(&second).await.unwrap(),
        Claim::Ours
    );
    assert_eq!(repository.list_clusters().await.unwrap(), [object(red, 1)]);
    // O23: another cluster is refused and leaves no trace.
    let foreign = repository.claim_cluster(&object(blue, 9)).await.unwrap();
    let nothing_put = Claim::Foreign {
        others: vec![ClusterId::new(red, 1)],
        ours_lies_there: false,
    };
    assert_eq!(foreign, nothing_put);
    assert_eq!(repository.list_clusters().await.unwrap().len(), 1);
    // I13: the next life of the cluster takes over, and the old one is told.
    assert_eq!(
        repository.claim_cluster(&object(red, 2)).await.unwrap(),
        Claim::Ours
    );
    assert_eq!(
        repository.claim_cluster(&object(red, 1)).await.unwrap(),
        Claim::Newer(ClusterId::new(red, 2))
    );
    let lives: Vec<u64> = repository
        .list_clusters()
        .await
        .unwrap()
        .iter()
        .map(|c| c.cluster.incarnation)
        .collect();
    assert_eq!(lives, [2, 1]);
}

async fn o23_of_clusters_that_claim_at_once_at_most_one_owns_the_prefix(place: Place) {
    for round in 0..10 {
        let url = format!("{}/{round}", place.url);
        let repository = place
            .open_with(&url, place.env.clone(), RepositoryOptions::default())
            .await;
        let claims = (1..=4_u32).map(|i| {
            let repository = repository.clone();
            let ours = object(&format!("{i:08}-1111-4111-8111-111111111111"), 1);
            async move { repository.claim_cluster(&ours).await.unwrap() }
        });
        let claims: Vec<Claim> = futures::future::join_all(claims).await;
        let owners = claims.iter().filter(|c| **c == Claim::Ours).count();
        assert!(owners <= 1, "{claims:?}");
        assert_eq!(repository.list_clusters().await.unwrap().len(), owners);
    }
}

#[tokio::test]
async fn the_cluster_object_is_readable_by_people() {
    let place = Place::disk();
    let repository = place.open().await;
    let object = object("11111111-1111-4111-8111-111111111111", 3);
    repository.claim_cluster(&object).await.unwrap();
    let folder = place.dir.path().join("objects");
    let path = folder.join(paths::cluster(&object.cluster));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let expected = serde_json::json!({
        "version": 1, "uuid": "11111111-1111-4111-8111-111111111111", "incarnation": 3,
        "createdAt": "2026-09-21T14:13:20.123456Z", "createdBy": "node1", "nonce": "n",
    });
    assert_eq!(json, expected);
    // X21: one that is not what its name says, or is huge, or newer, is an error and not "nobody".
    for (content, kind) in [
        (serde_json::to_vec(&json).unwrap().repeat(2), Kind::Damaged),
        (vec![b' '; 100_000], Kind::Damaged),
        (
            std::fs::read_to_string(&path)
                .unwrap()
                .replace("\"incarnation\": 3", "\"incarnation\": 4")
                .into(),
            Kind::Damaged,
        ),
        (
            std::fs::read_to_string(&path)
                .unwrap()
                .replace("\"version\": 1", "\"version\": 2")
                .into(),
            Kind::Configuration,
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(repository.list_clusters().await.unwrap_err().kind, kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_creates_that_race_one_wins_on_the_dev_server() {
    use object_store::{PutMode, PutOptions};
    let place = Place::dev_s3("s3://bucket").await;
    let (store, _) = place.raw();
    for round in 0..50 {
        let creates = (0..8_u8).map(|i| {
            let store = store.clone();
            async move {
                let options = PutOptions {
                    mode: PutMode::Create,
                    ..PutOptions::default()
                };
                store
                    .put_opts(
                        &format!("race/{round}").into(),
                        vec![i; 1000].into(),
                        options,
                    )
                    .await
            }
        });
        let done = futures::future::join_all(creates).await;
        let lost = |r: &&object_store::Result<_>| {
            matches!(r, Err(object_store::Error::AlreadyExists { .. }))
        };
        assert_eq!(
            done.iter().filter(|r| r.is_ok()).count(),
            1,
            "round {round}: {done:?}"
        );
        assert_eq!(
            done.iter().filter(lost).count(),
            7,
            "round {round}: {done:?}"
        );
    }
}
