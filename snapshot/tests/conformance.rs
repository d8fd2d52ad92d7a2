//! One suite over every kind of store that a test can have: memory, a folder, the S3 server of `confman dev`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use confman_dev_s3::{RunningS3, S3Config, serve};
use confman_snapshot::build::{BuildOptions, Phase, build_and_upload};
use confman_snapshot::repository::{Claim, ClusterObject, RepositoryOptions};
use confman_snapshot::testing::{state, view};
use confman_snapshot::{
    ChunkSource, ClusterId, Codec, GroupId, Kind, Record, RecordStream, Repository, SnapshotId,
    WriteOptions, paths,
};

/// A store, and what must live as long as it.
struct Store {
    url: String,
    env: Vec<(String, String)>,
    dir: tempfile::TempDir,
    _server: Option<(RunningS3, tempfile::TempDir)>,
}

impl Store {
    async fn all() -> Vec<Self> {
        let dir = || tempfile::tempdir().unwrap();
        let memory = format!("memory://{:016x}/prefix", rand::random::<u64>());
        let mut stores = vec![
            Self {
                url: memory,
                env: vec![],
                dir: dir(),
                _server: None,
            },
            Self {
                url: "file://{data}/objects".to_owned(),
                env: vec![],
                dir: dir(),
                _server: None,
            },
        ];
        let root = dir();
        let server = s3(root.path()).await;
        let env = server.env();
        for url in ["s3://bucket", "s3://bucket/deep/prefix"] {
            stores.push(Self {
                url: url.to_owned(),
                env: env.clone(),
                dir: dir(),
                _server: None,
            });
        }
        // The last of them holds the server: it goes last.
        stores.last_mut().unwrap()._server = Some((server, root));
        stores
    }

    async fn open(&self) -> Repository {
        // Small parts and a low border, so that uploads in parts are tried with little data. S3 wants 5 MiB a part.
        let options = RepositoryOptions {
            single_put_bytes_max: 1 << 20,
            part_bytes: if self.url.starts_with("s3") {
                5 << 20
            } else {
                100_000
            },
            ..RepositoryOptions::default()
        };
        Repository::open_with(&self.url, self.dir.path(), self.env.clone(), options)
            .await
            .unwrap()
    }
}

async fn s3(root: &Path) -> RunningS3 {
    let config = S3Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        root: root.join("s3"),
        access_key: "test-access-key".to_owned(),
        secret_key: "test-secret-key".to_owned(),
        bucket: "bucket".to_owned(),
    };
    serve(config).await.unwrap()
}

fn options(dir: &Path, nonce: u32, codec: Codec) -> BuildOptions {
    BuildOptions {
        write: WriteOptions {
            codec,
            chunk_bytes: 64 << 10,
        },
        tmp_dir: dir.join("tmp"),
        builder_node: 1,
        nonce,
    }
}

async fn all_records(mut stream: RecordStream) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        records.extend(chunk);
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_store_does_what_a_repository_promises() {
    for store in Store::all().await {
        let repository = store.open().await;
        println!("{}", repository.url());
        repository.ping().await.unwrap();
        probes(&repository).await;
        snapshots(&repository, store.dir.path()).await;
        large_snapshot(&repository, store.dir.path()).await;
        ranges(&repository).await;
        other_content(&repository).await;
        owners(&repository).await;
    }
}

async fn probes(repository: &Repository) {
    let probe = repository.probe_short().await.unwrap();
    assert!(
        probe.conditional_put && probe.list_after_put && probe.delete,
        "{probe:?}"
    );
}

async fn snapshots(repository: &Repository, dir: &Path) {
    let group = GroupId::config(0);
    assert_eq!(
        repository.list_snapshots(&group).await.unwrap().snapshots,
        []
    );
    let mut records = Vec::new();
    for (index, codec) in [
        (9637, Codec::Zstd),
        (10_137, Codec::Gzip),
        (10, Codec::None),
    ] {
        let phases = std::sync::Mutex::new(Vec::new());
        let progress = |phase: Phase| phases.lock().unwrap().push(phase);
        let options = options(dir, 1, codec);
        let record = build_and_upload(
            view(&group, index, 500, 300),
            repository,
            &options,
            progress,
        )
        .await
        .unwrap();
        assert_eq!(
            *phases.lock().unwrap(),
            [Phase::Build, Phase::Upload, Phase::Verify]
        );
        assert_eq!(
            std::fs::read_dir(dir.join("tmp")).unwrap().count(),
            0,
            "the temporary file is still there"
        );
        record.check().unwrap();
        assert_eq!((record.records, record.position.index), (500, index));
        records.push(record);
    }
    // Newest by position, not by text nor by time.
    let listing = repository.list_snapshots(&group).await.unwrap();
    let listed: Vec<u64> = listing.snapshots.iter().map(|s| s.id.index).collect();
    assert_eq!(listed, [10_137, 9637, 10]);
    assert_eq!(listing.foreign, 0);
    assert_eq!(
        repository
            .list_snapshots(&GroupId::config(1))
            .await
            .unwrap()
            .snapshots,
        []
    );

    for record in &records {
        let reader = repository.open_recorded(record).await.unwrap();
        assert_eq!(
            all_records(reader.records(2)).await,
            state(&group, record.position.index, 500, 300).1
        );
        let listed = listing
            .snapshots
            .iter()
            .find(|s| s.id == record.id)
            .unwrap();
        assert_eq!(
            (listed.bytes, &listed.object),
            (record.object_bytes, &record.object)
        );
        repository.verify(&group, &record.id).await.unwrap();
    }
    // O09: the record of one, the object of another.
    let mut wrong = records[0].clone();
    wrong.manifest_blake3 = records[1].manifest_blake3.clone();
    let error = repository.open_recorded(&wrong).await.unwrap_err();
    assert!(error.is_bad_snapshot(), "{error}");

    // What is deleted is gone, and deleting it again is no error.
    for _ in 0..2 {
        repository
            .delete_snapshot(&group, &records[0].id)
            .await
            .unwrap();
    }
    let error = repository.open_recorded(&records[0]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.is_bad_snapshot() && !error.is_unreachable());
    assert_eq!(
        repository
            .list_snapshots(&group)
            .await
            .unwrap()
            .snapshots
            .len(),
        2
    );
}

async fn large_snapshot(repository: &Repository, dir: &Path) {
    // About 12 MB that do not compress: three parts for S3.
    let group = GroupId::meta();
    let options = options(dir, 2, Codec::None);
    let record = build_and_upload(view(&group, 5, 600, 20_000), repository, &options, |_| {})
        .await
        .unwrap();
    assert!(record.object_bytes > 10 << 20);
    // O11: the same file again is found to be there already.
    let (info, records) = state(&group, 5, 600, 20_000);
    let path = dir.join("again.snap");
    let all = records.into_iter().map(Ok::<_, std::io::Error>);
    confman_snapshot::write_snapshot(&path, &record.id, &info, all, &options.write).unwrap();
    repository
        .put_snapshot(&path, &group, &record.id)
        .await
        .unwrap();
    // Another content under its name is a conflict, and what was there stays.
    let mut other = info;
    other.created_us += 1;
    let all = state(&group, 5, 600, 20_000)
        .1
        .into_iter()
        .map(Ok::<_, std::io::Error>);
    std::fs::remove_file(&path).unwrap();
    confman_snapshot::write_snapshot(&path, &record.id, &other, all, &options.write).unwrap();
    let error = repository
        .put_snapshot(&path, &group, &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    repository.open_recorded(&record).await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

async fn ranges(repository: &Repository) {
    let group = GroupId::meta();
    let listed = repository
        .list_snapshots(&group)
        .await
        .unwrap()
        .snapshots
        .remove(0);
    assert_eq!(repository.size(&listed.object).await.unwrap(), listed.bytes);
    assert_eq!(
        &repository.read(&listed.object, 0..8).await.unwrap()[..],
        b"CONFSNAP"
    );
    assert_eq!(
        &repository
            .read(&listed.object, listed.bytes - 8..listed.bytes)
            .await
            .unwrap()[..],
        b"PANSFNOC"
    );
    assert!(
        repository
            .read(&listed.object, 4..4)
            .await
            .unwrap()
            .is_empty()
    );
    for range in [
        listed.bytes - 1..listed.bytes + 1,
        listed.bytes + 5..listed.bytes + 9,
    ] {
        let error = repository.read(&listed.object, range).await.unwrap_err();
        assert_eq!(error.kind, Kind::Damaged, "{error}");
    }
    let error = repository
        .read("snapshots/nothing", 0..1)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert_eq!(
        repository.size("snapshots/nothing").await.unwrap_err().kind,
        Kind::NotFound
    );
}

async fn other_content(repository: &Repository) {
    // A good name, put there by hand, that holds something else.
    let group = GroupId::config(7);
    let id = SnapshotId {
        index: 1,
        incarnation: 1,
        term: 1,
        nonce: 1,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, vec![7; 200]).unwrap();
    repository.put_snapshot(&path, &group, &id).await.unwrap();
    let listing = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((listing.snapshots.len(), listing.foreign), (1, 0));
    let error = repository.verify(&group, &id).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(
        error.to_string().contains(&paths::snapshot(&group, &id)),
        "{error}"
    );
}

async fn owners(repository: &Repository) {
    let object = |uuid: &str, incarnation| ClusterObject {
        version: 1,
        cluster: ClusterId::new(uuid, incarnation),
        created_us: 1_790_000_000_123_456,
        created_by: "node1".to_owned(),
        nonce: "n".to_owned(),
        order: None,
        recovery: None,
    };
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
    assert_eq!(foreign, Claim::Foreign(vec![ClusterId::new(red, 1)]));
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

#[tokio::test]
async fn o22_names_of_others_are_counted_ignored_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open("file://{data}/objects", dir.path(), [])
        .await
        .unwrap();
    let group = GroupId::config(0);
    build_and_upload(
        view(&group, 5, 10, 50),
        &repository,
        &options(dir.path(), 1, Codec::Zstd),
        |_| {},
    )
    .await
    .unwrap();
    let folder = dir.path().join("objects").join(paths::snapshots(&group));
    for name in [
        "notes.txt",
        "latest.snap",
        "00000000000000000005-0000000001-0000000003-00000001.snap.bak",
        "a b%2e",
    ] {
        std::fs::write(folder.join(name), b"somebody's").unwrap();
    }
    std::fs::create_dir(folder.join("deeper")).unwrap();
    std::fs::write(folder.join("deeper/x.snap"), b"somebody's").unwrap();
    let listing = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((listing.snapshots.len(), listing.foreign), (1, 5));
    repository
        .delete_snapshot(&group, &listing.snapshots[0].id)
        .await
        .unwrap();
    let left = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((left.snapshots.len(), left.foreign), (0, 5));
}

#[tokio::test]
async fn the_cluster_object_is_readable_by_people() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open("file://{data}/objects", dir.path(), [])
        .await
        .unwrap();
    let cluster = ClusterId::new("11111111-1111-4111-8111-111111111111", 3);
    let object = ClusterObject {
        version: 1,
        cluster: cluster.clone(),
        created_us: 1_790_000_000_123_456,
        created_by: "node1".to_owned(),
        nonce: "n".to_owned(),
        order: None,
        recovery: None,
    };
    repository.claim_cluster(&object).await.unwrap();
    let path = dir.path().join("objects").join(paths::cluster(&cluster));
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
async fn o23_of_clusters_that_claim_at_once_at_most_one_owns_the_prefix() {
    let root = tempfile::tempdir().unwrap();
    let server = s3(root.path()).await;
    for round in 0..10 {
        let repository =
            Repository::open(&format!("s3://bucket/{round}"), root.path(), server.env())
                .await
                .unwrap();
        let claims = (1..=4_u32).map(|i| {
            let repository = repository.clone();
            async move {
                let object = ClusterObject {
                    version: 1,
                    cluster: ClusterId::new(format!("{i:08}-1111-4111-8111-111111111111"), 1),
                    created_us: 0,
                    created_by: "n".to_owned(),
                    nonce: "n".to_owned(),
                    order: None,
                    recovery: None,
                };
                repository.claim_cluster(&object).await.unwrap()
            }
        });
        let claims: Vec<Claim> = futures::future::join_all(claims).await;
        let owners = claims.iter().filter(|c| **c == Claim::Ours).count();
        assert!(owners <= 1, "{claims:?}");
        assert_eq!(repository.list_clusters().await.unwrap().len(), owners);
    }
}

#[tokio::test]
async fn x18_wrong_credentials_are_said_without_showing_them() {
    let root = tempfile::tempdir().unwrap();
    let server = s3(root.path()).await;
    let mut env = server.env();
    env.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    env.push((
        "AWS_SECRET_ACCESS_KEY".to_owned(),
        "canary-wrong-secret".to_owned(),
    ));
    let repository = Repository::open("s3://bucket", root.path(), env)
        .await
        .unwrap();
    let error = repository.ping().await.unwrap_err();
    assert_eq!(error.kind, Kind::Credentials, "{error}");
    let text = format!("{error} {error:?}");
    assert!(
        !text.contains("canary") && !text.contains("test-access-key") && text.contains("hint"),
        "{text}"
    );
    // No such bucket is another matter.
    let repository = Repository::open("s3://other-bucket", root.path(), server.env())
        .await
        .unwrap();
    let error = repository.ping().await.unwrap_err();
    assert_eq!(error.kind, Kind::Configuration, "{error}");
}

#[tokio::test]
async fn o14_credentials_that_changed_on_disk_are_read_again() {
    let root = tempfile::tempdir().unwrap();
    let server = s3(root.path()).await;
    let file = root.path().join("secret");
    std::fs::write(&file, "test-secret-key\n").unwrap();
    let mut env = server.env();
    env.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    env.push((
        "AWS_SECRET_ACCESS_KEY_FILE".to_owned(),
        file.display().to_string(),
    ));
    std::fs::write(&file, "expired").unwrap();
    let repository = Repository::open("s3://bucket", root.path(), env)
        .await
        .unwrap();
    assert_eq!(repository.ping().await.unwrap_err().kind, Kind::Credentials);
    std::fs::write(&file, "test-secret-key\n").unwrap();
    repository.ping().await.unwrap();
}

#[tokio::test]
async fn i18_a_store_that_is_not_there_is_an_error_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_creates_that_race_one_wins_on_the_dev_server() {
    use object_store::aws::AmazonS3Builder;
    use object_store::{ObjectStore, PutMode, PutOptions};
    let root = tempfile::tempdir().unwrap();
    let server = s3(root.path()).await;
    // Installs the TLS provider, as a node would.
    Repository::open("s3://bucket", root.path(), server.env())
        .await
        .unwrap();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_allow_http(true);
    for (name, value) in server.env() {
        builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
    }
    let store: Arc<dyn ObjectStore> = Arc::new(builder.build().unwrap());
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
