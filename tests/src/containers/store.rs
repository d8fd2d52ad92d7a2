//! The object store of a cluster in containers, whichever server it is.

use anyhow::{Context as _, bail};

use super::docker::{docker, exec};
use super::lab::{Lab, Pod};
use crate::cluster::PATIENCE;
use crate::wait::wait_until;

/// Where every server listens.
pub const STORE_PORT: u16 = 8333;
/// The bucket, which every server is given.
pub const BUCKET: &str = "confman";
/// A node's keys, with no more rights than a node needs where the server knows rights: those of the role `node` in `RIGHTS`.
pub const ACCESS_KEY: &str = "node";
/// See [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "node-secret";
const RIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../compose/policies/seaweedfs.json"
);
/// Below this much free space `SeaweedFS` takes nothing more.
const FREE: &str = "50MiB";
/// A hundred per cent: no disk has that.
const FREE_NEVER: &str = "100";

/// Which program the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// `weed`, with the policies of `compose/policies`.
    SeaweedFs,
    /// `minio`, whose one key may do all.
    Minio,
}

impl Server {
    /// From its name in `CONTAINER_TEST_STORE_SERVER`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "seaweedfs" => Ok(Self::SeaweedFs),
            "minio" => Ok(Self::Minio),
            _ => bail!("no server {name:?}: seaweedfs or minio"),
        }
    }

    /// Whether it can be made to take nothing more: MinIO has no limit of its own.
    #[must_use]
    pub fn can_be_full(self) -> bool {
        self == Self::SeaweedFs
    }
}

/// Makes and starts a store on the volume `store`, one that takes nothing more if it is to be `full`.
pub(super) async fn create(
    lab: &Lab,
    image: &str,
    server: Server,
    pod: &Pod,
    full: bool,
) -> anyhow::Result<String> {
    let data = lab.volume("store").await?;
    let network = format!("container:{}", pod.container);
    let mount = format!("type=volume,source={data},target=/data");
    let mut args = vec!["--network", &network, "--mount", &mount];
    let free = format!(
        "-volume.minFreeSpace={}",
        if full { FREE_NEVER } else { FREE }
    );
    let address = format!(":{STORE_PORT}");
    let port = format!("-s3.port={STORE_PORT}");
    let user = format!("MINIO_ROOT_USER={ACCESS_KEY}");
    let password = format!("MINIO_ROOT_PASSWORD={SECRET_KEY}");
    match server {
        Server::SeaweedFs => args.extend([
            "--entrypoint",
            "/usr/bin/weed",
            image,
            "server",
            "-dir=/data",
            "-ip=store",
            "-ip.bind=0.0.0.0",
            &free,
            "-volume.max=20",
            "-s3",
            &port,
            "-s3.config=/s3.json",
        ]),
        Server::Minio if full => bail!("MinIO cannot be told to take nothing more"),
        Server::Minio => args.extend([
            "--env",
            &user,
            "--env",
            &password,
            image,
            "server",
            "/data",
            "--address",
            &address,
        ]),
    }
    let store = lab.create("store", &args).await?;
    if server == Server::SeaweedFs {
        docker(&["cp", RIGHTS, &format!("{store}:/s3.json")]).await?;
    }
    docker(&["start", &store]).await?;
    Ok(store)
}

/// Makes the bucket, which a store that is not ready does not do.
pub(super) async fn wait(server: Server, store: &str) -> anyhow::Result<()> {
    let script = match server {
        Server::SeaweedFs => {
            let shell = "weed shell -master=store:9333 -filer=store:8888";
            let is_there = format!(
                "{{ sub(/^> */, \"\") }} $1 == \"{BUCKET}\" {{ found = 1 }} END {{ exit !found }}"
            );
            format!(
                "echo 's3.bucket.create -name {BUCKET}' | {shell}; echo s3.bucket.list | {shell} | awk '{is_there}'"
            )
        }
        // MinIO's image has its client too.
        Server::Minio => format!(
            "mc alias set own http://127.0.0.1:{STORE_PORT} {ACCESS_KEY} {SECRET_KEY} && mc mb --ignore-existing own/{BUCKET}"
        ),
    };
    wait_until("the store has its bucket", PATIENCE, || async {
        exec(store, &["sh", "-c", &script])
            .await
            .map(|_| ())
            .context("make the bucket")
    })
    .await
}
