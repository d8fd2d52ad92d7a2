//! Credentials that are wrong, changed or not enough, and stores that are not there.

use std::sync::Arc;

use confman_snapshot::repository::RepositoryOptions;
use confman_snapshot::{ChunkSource, Kind, Repository};

use crate::place::Place;

/// On the servers that check signatures; moto takes any.
mod x18_wrong_credentials_are_said_without_showing_them {
    use super::{Place, refused};

    #[tokio::test]
    async fn dev_s3() {
        refused(Place::dev_s3("s3://bucket").await).await;
    }

    #[tokio::test]
    #[ignore = "needs SeaweedFS at STORE_TEST_SEAWEEDFS: run .ci/stores"]
    async fn seaweedfs() {
        refused(Place::server("STORE_TEST_SEAWEEDFS")).await;
    }
}

on_servers! {
    a_bucket_that_is_not_there_is_said
}

async fn refused(place: Place) {
    let env = place.env_with("AWS_SECRET_ACCESS_KEY", "canary-wrong-secret");
    let repository = place
        .open_with(&place.url, env, RepositoryOptions::default())
        .await;
    let error = repository.ping().await.unwrap_err();
    assert_eq!(error.kind, Kind::Credentials, "{error}");
    let text = format!("{error} {error:?}");
    let (_, id) = place
        .env
        .iter()
        .find(|(n, _)| n == "AWS_ACCESS_KEY_ID")
        .unwrap();
    assert!(
        !text.contains("canary") && !text.contains(id.as_str()) && text.contains("hint"),
        "{text}"
    );
}

async fn a_bucket_that_is_not_there_is_said(place: Place) {
    let repository = place
        .open_with(
            "s3://no-such-bucket",
            place.env.clone(),
            RepositoryOptions::default(),
        )
        .await;
    let error = repository.ping().await.unwrap_err();
    assert_eq!(error.kind, Kind::Configuration, "{error}");
    assert!(error.hint.contains("bucket"), "{error}");
}

#[tokio::test]
async fn the_dev_server_says_that_a_bucket_is_not_there() {
    a_bucket_that_is_not_there_is_said(Place::dev_s3("s3://bucket").await).await;
}

#[tokio::test]
async fn o14_credentials_that_changed_on_disk_are_read_again() {
    let place = Place::dev_s3("s3://bucket").await;
    let file = place.dir.path().join("secret");
    let mut env = place.env.clone();
    env.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    env.push((
        "AWS_SECRET_ACCESS_KEY_FILE".to_owned(),
        file.display().to_string(),
    ));
    std::fs::write(&file, "expired").unwrap();
    let repository = place
        .open_with(&place.url, env, RepositoryOptions::default())
        .await;
    assert_eq!(repository.ping().await.unwrap_err().kind, Kind::Credentials);
    std::fs::write(&file, "test-secret-key\n").unwrap();
    repository.ping().await.unwrap();
}

#[tokio::test]
async fn i18_a_store_that_is_not_there_is_an_error_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there, and no other test is given that port.
    let env = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let repository = Repository::open("s3://bucket", dir.path(), env)
        .await
        .unwrap();
    let started = std::time::Instant::now();
    let error = repository.ping().await.unwrap_err();
    assert_eq!(error.kind, Kind::Wait, "{error}");
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
    let source: Arc<dyn ChunkSource> = Arc::new(repository);
    let error = confman_snapshot::SnapshotReader::open(source, "snapshots/x")
        .await
        .unwrap_err();
    assert!(
        error.is_unreachable() && !error.is_bad_snapshot(),
        "{error}"
    );
}
