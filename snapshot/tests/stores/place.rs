//! Where a store is, and what must live as long as it.

use std::path::Path;
use std::sync::Arc;

use confman_dev_s3::{ConditionalWrites, RunningS3, S3Config, serve};
use confman_snapshot::Repository;
use confman_snapshot::repository::RepositoryOptions;
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

/// Makes each of these functions of a [`Place`] a test on every store: `memory::NAME`, `disk::NAME`, and so on.
macro_rules! on_every_store {
    ($($test:ident)+) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::place::Place::memory()).await;
            })+
        }
        mod disk {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::place::Place::disk()).await;
            })+
        }
        mod dev_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::place::Place::dev_s3("s3://bucket").await).await;
            })+
        }
        on_servers! { $($test)+ }
    };
}

/// The same, only on S3 servers that others wrote.
macro_rules! on_servers {
    ($($test:ident)+) => {
        mod moto {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs moto at STORE_TEST_MOTO: run .ci/stores"]
            async fn $test() {
                super::$test(crate::place::Place::server("STORE_TEST_MOTO")).await;
            })+
        }
        mod seaweedfs {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs SeaweedFS at STORE_TEST_SEAWEEDFS: run .ci/stores"]
            async fn $test() {
                super::$test(crate::place::Place::server("STORE_TEST_SEAWEEDFS")).await;
            })+
        }
        mod other_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs an S3 server at STORE_TEST_OTHER"]
            async fn $test() {
                super::$test(crate::place::Place::server("STORE_TEST_OTHER")).await;
            })+
        }
    };
}

/// S3 takes no smaller part but the last.
const S3_PART_BYTES: u64 = 5 << 20;

/// A store that is empty below its URL.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) env: Vec<(String, String)>,
    /// A folder for what the test writes on this machine; the store of [`Place::disk`] is in it as well.
    pub(crate) dir: tempfile::TempDir,
    server: Option<RunningS3>,
}

impl Place {
    fn new(url: String, env: Vec<(String, String)>) -> Self {
        Self {
            url,
            env,
            dir: tempfile::tempdir().unwrap(),
            server: None,
        }
    }

    pub(crate) fn memory() -> Self {
        Self::new(
            format!("memory://{:016x}/prefix", rand::random::<u64>()),
            vec![],
        )
    }

    pub(crate) fn disk() -> Self {
        Self::new("file://{data}/objects".to_owned(), vec![])
    }

    /// The S3 server of `confman dev`, in this process, with the bucket `bucket`.
    pub(crate) async fn dev_s3(url: &str) -> Self {
        let mut place = Self::new(url.to_owned(), vec![]);
        let config = S3Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            root: place.dir.path().join("s3"),
            access_key: "test-access-key".to_owned(),
            secret_key: "test-secret-key".to_owned(),
            bucket: "bucket".to_owned(),
            conditional_writes: ConditionalWrites::default(),
        };
        let server = serve(config).await.unwrap();
        place.env = server.env();
        place.server = Some(server);
        place
    }

    /// The server that a variable names, under a prefix that nobody else has.
    pub(crate) fn server(variable: &str) -> Self {
        let value = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run .ci/stores"))
        };
        let place = value(variable);
        let (endpoint, bucket) = place
            .rsplit_once('/')
            .filter(|(endpoint, bucket)| endpoint.contains("://") && !bucket.is_empty())
            .unwrap_or_else(|| panic!("{variable} is {place}: expected http://host:port/bucket"));
        let env = [
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", value("AWS_ACCESS_KEY_ID")),
            ("AWS_SECRET_ACCESS_KEY", value("AWS_SECRET_ACCESS_KEY")),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let nonce: u64 = rand::random();
        Self::new(format!("s3://{bucket}/test-{nonce:016x}/deep"), env)
    }

    pub(crate) fn is_s3(&self) -> bool {
        self.url.starts_with("s3")
    }

    /// Another process serves it, which others wrote.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_s3() && self.server.is_none()
    }

    /// The smallest part that the store takes, but for tests of a megabyte.
    pub(crate) fn part_bytes(&self, otherwise: u64) -> u64 {
        if self.is_s3() {
            S3_PART_BYTES
        } else {
            otherwise
        }
    }

    pub(crate) async fn open(&self) -> Repository {
        // Small parts and a low border, so that uploads in parts are tried with little data.
        let options = RepositoryOptions {
            single_put_bytes_max: 1 << 20,
            part_bytes: self.part_bytes(100_000),
            ..RepositoryOptions::default()
        };
        self.open_with(&self.url, self.env.clone(), options).await
    }

    pub(crate) async fn open_with(
        &self,
        url: &str,
        env: Vec<(String, String)>,
        options: RepositoryOptions,
    ) -> Repository {
        Repository::open_with(url, self.dir.path(), env, options)
            .await
            .unwrap()
    }

    /// The same environment with another value of one variable.
    pub(crate) fn env_with(&self, name: &str, value: &str) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        env.retain(|(n, _)| n != name);
        env.push((name.to_owned(), value.to_owned()));
        env
    }

    /// The store below the repository, and the prefix in it: for who wants to stand between the two.
    pub(crate) fn raw(&self) -> (Arc<dyn ObjectStore>, String) {
        let (scheme, rest) = self.url.split_once("://").unwrap();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "memory" => (Arc::new(InMemory::new()), prefix.to_owned()),
            "file" => (Arc::new(folder(self.dir.path())), String::new()),
            _ => (Arc::new(self.s3(bucket)), prefix.to_owned()),
        }
    }

    fn s3(&self, bucket: &str) -> object_store::aws::AmazonS3 {
        // As a node would; whoever comes second finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_allow_http(true)
            // As the repository does.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
        for (name, value) in &self.env {
            builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
        }
        builder.build().unwrap()
    }
}

fn folder(dir: &Path) -> LocalFileSystem {
    let objects = dir.join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    LocalFileSystem::new_with_prefix(objects).unwrap()
}
