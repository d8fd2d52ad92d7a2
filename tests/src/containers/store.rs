//! The object store of a cluster in containers, whichever server it is.

use std::path::Path;

use anyhow::{Context as _, bail};
use testcontainers::core::Mount;
use testcontainers::{ContainerRequest, GenericImage, ImageExt as _};

use super::lab::{Images, Lab, Machine, Pod, image};
use crate::cluster::PATIENCE;
use crate::wait::wait_until;

/// The short name of container and volume.
pub(super) const STORE: &str = "store";
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
pub(super) async fn start(lab: &Lab, images: &Images, pod: &Pod, full: bool) -> anyhow::Result<()> {
    let data = lab.volume(STORE).await?;
    let server = match images.server {
        Server::SeaweedFs => seaweedfs(&images.store, &pod.host, full),
        Server::Minio if full => bail!("MinIO cannot be told to take nothing more"),
        Server::Minio => minio(&images.store),
    };
    let data = Mount::volume_mount(&data, "/data");
    let server = pod.holds(server).with_mount(data);
    let store = lab.start(STORE, server).await?;
    wait(images.server, &store, &pod.host).await
}

fn seaweedfs(name: &str, host: &str, full: bool) -> ContainerRequest<GenericImage> {
    let free = if full { FREE_NEVER } else { FREE };
    image(name)
        .with_entrypoint("/usr/bin/weed")
        .with_cmd([
            "server",
            "-dir=/data",
            &format!("-ip={host}"),
            "-ip.bind=0.0.0.0",
            &format!("-volume.minFreeSpace={free}"),
            "-volume.max=20",
            "-s3",
            &format!("-s3.port={STORE_PORT}"),
            "-s3.config=/s3.json",
        ])
        .with_copy_to("/s3.json", Path::new(RIGHTS))
}

fn minio(name: &str) -> ContainerRequest<GenericImage> {
    let address = format!(":{STORE_PORT}");
    image(name)
        .with_env_var("MINIO_ROOT_USER", ACCESS_KEY)
        .with_env_var("MINIO_ROOT_PASSWORD", SECRET_KEY)
        .with_cmd(["server", "/data", "--address", &address])
}

/// Makes the bucket, which a store that is not ready does not do.
pub(super) async fn wait(server: Server, store: &Machine, host: &str) -> anyhow::Result<()> {
    let script = match server {
        Server::SeaweedFs => {
            let shell = format!("weed shell -master={host}:9333 -filer={host}:8888");
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
        let made = store.exec(&["sh", "-c", &script]).await;
        made.map(|_| ()).context("make the bucket")
    })
    .await
}
