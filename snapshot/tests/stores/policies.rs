//! What the policies of `compose/policies` allow, and that they allow nothing else: every action of every role in every folder, on servers
//! that enforce them.
//!
//! A variable names a document: `{"endpoint": "http://host:port", "roles": {"admin": ["id", "secret"], "node": ..., "reader": ...,
//! "drill": ..., "collector": ...}}`.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};

/// As in `compose/docker-compose.yml`, and in the policies.
const BUCKET: &str = "confman";
const PREFIX: &str = "cluster";
/// Every folder of `paths`, and one that is not ours.
const FOLDERS: [&str; 8] = [
    "cluster/cluster",
    "cluster/snapshots",
    "cluster/pins",
    "cluster/marks",
    "cluster/reports",
    "cluster/reports/drill",
    "cluster/probe",
    "other",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Get,
    Put,
    PutInParts,
    Delete,
}

/// What a server can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforces {
    /// Policies: each action by its name.
    Policies,
    /// Who may write may delete.
    ReadOrWrite,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto with the policies at STORE_TEST_POLICIES_MOTO: run .ci/stores"]
async fn each_role_may_do_its_work_and_nothing_else_on_moto() {
    try_all("STORE_TEST_POLICIES_MOTO", Enforces::Policies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS with the policies at STORE_TEST_POLICIES_SEAWEEDFS: run .ci/stores"]
async fn each_role_may_do_its_work_and_nothing_else_on_seaweedfs() {
    try_all("STORE_TEST_POLICIES_SEAWEEDFS", Enforces::ReadOrWrite).await;
}

/// What the work of a role needs.
fn needs(role: &str, action: Action, folder: &str) -> bool {
    let Some(folder) = folder.strip_prefix("cluster/") else {
        return false;
    };
    let (writes, deletes): (&[&str], &[&str]) = match role {
        "node" => (
            &["cluster", "snapshots", "reports", "reports/drill", "probe"],
            &["cluster", "snapshots", "probe"],
        ),
        "collector" => (&["marks"], &["marks", "snapshots"]),
        "drill" => (&["reports/drill"], &[]),
        "reader" => (&[], &[]),
        _ => panic!("no role {role}"),
    };
    match action {
        Action::Get => true,
        Action::Put | Action::PutInParts => writes.contains(&folder),
        Action::Delete => deletes.contains(&folder),
    }
}

fn allowed(role: &str, action: Action, folder: &str, enforces: Enforces) -> bool {
    let may = |action| needs(role, action, folder);
    match (enforces, action) {
        (Enforces::ReadOrWrite, Action::Put | Action::PutInParts | Action::Delete) => {
            may(Action::Put) || may(Action::Delete)
        }
        _ => may(action),
    }
}

async fn try_all(variable: &str, enforces: Enforces) {
    let file =
        std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run .ci/stores"));
    let servers: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let admin = store(&servers, "admin");
    for role in ["node", "reader", "drill", "collector"] {
        let store = store(&servers, role);
        let prefix = Path::from(PREFIX);
        store.list_with_delimiter(Some(&prefix)).await.unwrap();
        for folder in FOLDERS {
            for action in [Action::Get, Action::Put, Action::PutInParts, Action::Delete] {
                // Whoever may put may put in parts; marks and reports are small, so nobody needs a right to abort those.
                if ["collector", "drill"].contains(&role)
                    && action == Action::PutInParts
                    && needs(role, Action::Put, folder)
                {
                    continue;
                }
                let path = Path::from(format!("{folder}/{role}-{action:?}"));
                let there = PutPayload::from_static(b"there");
                admin.put(&path, there).await.unwrap();
                let done = act(&*store, action, &path).await;
                let wanted = allowed(role, action, folder, enforces);
                match done {
                    Ok(()) if wanted => {}
                    Err(error) if !wanted && is_refusal(&error) => {}
                    other => panic!(
                        "{role} {action:?} in {folder}: allowed should be {wanted}: {other:?}"
                    ),
                }
                // A refusal is no answer after the fact.
                let left = admin.get(&path).await;
                let deleted = action == Action::Delete && wanted;
                assert_eq!(left.is_err(), deleted, "{role} {action:?} in {folder}");
                admin.delete(&path).await.unwrap();
            }
        }
        // What is not there is known not to be there, and not just out of sight.
        let missing = store.head(&Path::from("cluster/snapshots/missing")).await;
        assert!(
            matches!(missing, Err(object_store::Error::NotFound { .. })),
            "{role}: {missing:?}"
        );
    }
}

async fn act(store: &dyn ObjectStore, action: Action, path: &Path) -> object_store::Result<()> {
    match action {
        Action::Get => store.get(path).await?.bytes().await.map(|_| ()),
        Action::Put => {
            let content = PutPayload::from_static(b"ours");
            store.put(path, content).await.map(|_| ())
        }
        Action::PutInParts => {
            let mut given_up = store.put_multipart(path).await?;
            given_up.put_part(PutPayload::from_static(b"part")).await?;
            given_up.abort().await?;
            let mut upload = store.put_multipart(path).await?;
            upload.put_part(PutPayload::from_static(b"part")).await?;
            upload.complete().await.map(|_| ())
        }
        Action::Delete => store.delete(path).await,
    }
}

fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(
        error,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    )
}

fn store(servers: &serde_json::Value, role: &str) -> Arc<dyn ObjectStore> {
    // As a node would; whoever comes second finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let keys = &servers["roles"][role];
    let builder = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_allow_http(true)
        .with_endpoint(text(&servers["endpoint"]))
        .with_access_key_id(text(&keys[0]))
        .with_secret_access_key(text(&keys[1]))
        // As the repository does.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    Arc::new(builder.build().unwrap())
}
