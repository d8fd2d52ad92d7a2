//! For tests only (feature `testing`): an object store that fails by script, and states to snapshot.
//!
//! [`FaultStore`] wraps a store that works. Each [`Rule`] names an operation, a part of an object's name, how many matching
//! calls go through before it bites, and how often. All calls are written down, so that a test can say what was *not* done.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

use crate::StateHash;
use crate::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use crate::view::{Record, SnapshotInfo, StateView};

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// An object in one request.
    Put,
    /// The start of an upload in parts.
    Start,
    /// One part.
    Part,
    /// The end of an upload in parts.
    Complete,
    /// The undoing of one.
    Abort,
    /// Bytes of an object.
    Get,
    /// Its size.
    Head,
    /// A listing.
    List,
    /// A deletion.
    Delete,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error, and nothing was done.
    Before(Failure),
    /// An error, although it was done: the answer was lost.
    After(Failure),
    /// "Already exists", for the caller's own write, which was done.
    ExistsAfter,
    /// "Already exists" (409 of two requests at a time), and nothing was done.
    ExistsBefore,
    /// The body ends after so many bytes.
    Truncate(usize),
    /// One bit of the body is flipped, counted from its start.
    Flip(usize),
    /// The body is that of another object, same range; of a look, what is said of it.
    Swap(String),
    /// A look that says that the object was written so much later than it was.
    Late(Duration),
    /// So much earlier.
    Early(Duration),
    /// No answer, ever.
    Hang,
    /// A put whose condition is accepted and ignored.
    Unconditional,
    /// The same, and an error though it was done.
    UnconditionalAfter(Failure),
    /// A put whose condition is looked at, and others with it, before any of them is put: right one at a time, and not atomic.
    LookThenPut,
    /// A put with a condition fails; one without goes through.
    RefuseConditions,
    /// A deletion that says yes and does nothing.
    Nothing,
    /// A listing without the objects whose names contain this.
    Hide(String),
    /// A listing that shows each object twice, in reverse.
    Repeat,
    /// A listing that ends after so many objects, as if there were no more pages.
    Cut(usize),
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 503 SlowDown.
    Busy,
    /// No connection.
    Unreachable,
    /// 403.
    Denied,
    /// 400 ExpiredToken.
    Expired,
    /// 507.
    Full,
    /// 404.
    Gone,
    /// 400, for a header that the server does not know.
    Condition,
    /// 400, for something that is not said.
    Unsaid,
}

/// One line of the script.
#[derive(Debug, Clone)]
pub struct Rule {
    op: Op,
    part_of_name: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// The first `op` on any object fails.
    pub fn on(op: Op, fault: Fault) -> Self {
        Self {
            op,
            part_of_name: String::new(),
            skip: 0,
            times: 1,
            fault,
        }
    }

    /// Only objects whose names contain this.
    #[must_use]
    pub fn named(mut self, part_of_name: &str) -> Self {
        self.part_of_name = part_of_name.to_owned();
        self
    }

    /// So many matching calls go through first.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// So many calls fail; the default is one.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// All matching calls fail.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<(Op, String)>,
    down: bool,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn ObjectStore>,
    script: Mutex<Script>,
}

/// A store that does what its script says, and otherwise what the wrapped store does.
#[derive(Debug, Clone)]
pub struct FaultStore(Arc<Shared>);

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.0.inner)
    }
}

impl FaultStore {
    /// Wraps a store that works.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self(Arc::new(Shared {
            inner,
            script: Mutex::default(),
        }))
    }

    /// Wraps a new store in memory.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Adds a line to the script.
    pub fn add(&self, rule: Rule) {
        self.script().rules.push(rule);
    }

    /// Takes back the whole script.
    pub fn heal(&self) {
        let mut script = self.script();
        script.rules.clear();
        script.down = false;
    }

    /// Whether nothing can be reached from now on.
    pub fn set_down(&self, down: bool) {
        self.script().down = down;
    }

    /// How many calls there were so far.
    pub fn calls(&self, op: Op) -> usize {
        self.script().calls.iter().filter(|(o, _)| *o == op).count()
    }

    /// The wrapped store, for looking and for damage behind everybody's back.
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        self.0.inner.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, op: Op, name: &str) -> Option<Fault> {
        let mut script = self.script();
        script.calls.push((op, name.to_owned()));
        if script.down {
            return Some(Fault::Before(Failure::Unreachable));
        }
        for rule in script
            .rules
            .iter_mut()
            .filter(|r| r.op == op && name.contains(&r.part_of_name))
        {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault.clone());
            }
        }
        None
    }

    /// Does `work` as the script says, for calls without a body.
    async fn run<T>(&self, op: Op, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.act(self.next(op, name), name, work).await
    }

    async fn act<T>(
        &self,
        fault: Option<Fault>,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fault {
            Some(Fault::Before(failure)) => Err(failure.error(name)),
            Some(Fault::After(failure) | Fault::UnconditionalAfter(failure)) => {
                work.await?;
                Err(failure.error(name))
            }
            Some(Fault::ExistsAfter) => {
                work.await?;
                Err(exists(name))
            }
            Some(Fault::ExistsBefore) => Err(exists(name)),
            Some(Fault::Hang) => futures::future::pending().await,
            _ => work.await,
        }
    }

    async fn looked(&self, fault: &Fault, path: &Path, options: GetOptions) -> Result<GetResult> {
        let of = match fault {
            Fault::Swap(other) => &Path::from(other.as_str()),
            _ => path,
        };
        let mut found = self.0.inner.get_opts(of, options).await?;
        match fault {
            Fault::Late(time) => found.meta.last_modified += *time,
            Fault::Early(time) => found.meta.last_modified -= *time,
            _ => {}
        }
        Ok(found)
    }

    async fn altered(&self, fault: &Fault, path: &Path, options: GetOptions) -> Result<GetResult> {
        let from = match fault {
            Fault::Swap(other) => Path::from(other.as_str()),
            _ => path.clone(),
        };
        let whole = self.0.inner.get_opts(&from, options).await?;
        let (meta, attributes, range) = (
            whole.meta.clone(),
            whole.attributes.clone(),
            whole.range.clone(),
        );
        let mut body = whole.bytes().await?.to_vec();
        match fault {
            Fault::Truncate(len) => body.truncate(*len),
            Fault::Flip(bit) => {
                if let Some(byte) = body.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            _ => {}
        }
        let payload =
            GetResultPayload::Stream(futures::stream::iter([Ok(Bytes::from(body))]).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions: object_store::Extensions::default(),
        })
    }
}

impl Failure {
    fn error(self, name: &str) -> object_store::Error {
        let path = name.to_owned();
        let status = |text: &str| object_store::Error::Generic {
            store: "fault",
            source: format!("Server returned non-2xx status code: {text}").into(),
        };
        match self {
            Self::Busy => status("503 Service Unavailable: SlowDown"),
            Self::Expired => status("400 Bad Request: <Code>ExpiredToken</Code>"),
            Self::Condition => {
                status("400 Bad Request: <Code>InvalidArgument</Code> If-None-Match")
            }
            Self::Unsaid => status("400 Bad Request: <Code>InvalidRequest</Code>"),
            Self::Full => status("507 Insufficient Storage"),
            Self::Unreachable => {
                let source = HttpError::new(
                    HttpErrorKind::Connect,
                    std::io::Error::other("connection refused"),
                );
                object_store::Error::Generic {
                    store: "fault",
                    source: Box::new(source),
                }
            }
            Self::Denied => object_store::Error::PermissionDenied {
                path,
                source: "AccessDenied".into(),
            },
            Self::Gone => object_store::Error::NotFound {
                path,
                source: "NoSuchKey".into(),
            },
        }
    }
}

fn exists(name: &str) -> object_store::Error {
    object_store::Error::AlreadyExists {
        path: name.to_owned(),
        source: "ConditionalRequestConflict".into(),
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.next(Op::Put, path.as_ref());
        match fault {
            Some(Fault::Unconditional | Fault::UnconditionalAfter(_)) => {
                options.mode = PutMode::Overwrite;
            }
            Some(Fault::LookThenPut) if options.mode == PutMode::Create => {
                if self.0.inner.head(path).await.is_ok() {
                    return Err(exists(path.as_ref()));
                }
                // Those who came at the same time look before this one goes on.
                tokio::task::yield_now().await;
                options.mode = PutMode::Overwrite;
            }
            Some(Fault::RefuseConditions) if options.mode != PutMode::Overwrite => {
                return Err(Failure::Condition.error(path.as_ref()));
            }
            _ => {}
        }
        let put = self.0.inner.put_opts(path, payload, options);
        self.act(fault, path.as_ref(), put).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self
            .run(
                Op::Start,
                path.as_ref(),
                self.0.inner.put_multipart_opts(path, options),
            )
            .await?;
        Ok(Box::new(FaultUpload {
            store: self.clone(),
            name: path.to_string(),
            upload,
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        match self.next(op, path.as_ref()) {
            Some(Fault::Before(failure) | Fault::After(failure)) => {
                Err(failure.error(path.as_ref()))
            }
            Some(Fault::Hang) => futures::future::pending().await,
            Some(fault) if op == Op::Get => self.altered(&fault, path, options).await,
            Some(fault) => self.looked(&fault, path, options).await,
            None => self.0.inner.get_opts(path, options).await,
        }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut all = Vec::with_capacity(ranges.len());
        for range in ranges {
            all.push(self.get_range(path, range.clone()).await?);
        }
        Ok(all)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    let fault = store.next(Op::Delete, path.as_ref());
                    if !matches!(fault, Some(Fault::Nothing)) {
                        let delete = store.0.inner.delete(&path);
                        store.act(fault, path.as_ref(), delete).await?;
                    }
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let name = prefix.map(ToString::to_string).unwrap_or_default();
        let (inner, prefix) = (self.0.inner.clone(), prefix.cloned());
        let fault = self.next(Op::List, &name);
        let listing = async move {
            match fault {
                Some(Fault::Before(failure) | Fault::After(failure)) => {
                    return Err(failure.error(&name));
                }
                Some(Fault::Hang) => futures::future::pending::<()>().await,
                _ => {}
            }
            let mut objects: Vec<ObjectMeta> = inner.list(prefix.as_ref()).try_collect().await?;
            match fault {
                Some(Fault::Hide(part)) => objects.retain(|o| !o.location.as_ref().contains(&part)),
                Some(Fault::Cut(len)) => objects.truncate(len),
                Some(Fault::Repeat) => {
                    objects = objects
                        .iter()
                        .rev()
                        .flat_map(|o| [o.clone(), o.clone()])
                        .collect();
                }
                _ => {}
            }
            Ok(futures::stream::iter(objects).map(Ok))
        };
        listing.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let name = prefix.map(ToString::to_string).unwrap_or_default();
        self.run(Op::List, &name, self.0.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(
            Op::Put,
            to.as_ref(),
            self.0.inner.copy_opts(from, to, options),
        )
        .await
    }
}

#[derive(Debug)]
struct FaultUpload {
    store: FaultStore,
    name: String,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, name, part) = (
            self.store.clone(),
            self.name.clone(),
            self.upload.put_part(data),
        );
        async move { store.run(Op::Part, &name, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let store = self.store.clone();
        store
            .run(Op::Complete, &self.name, self.upload.complete())
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        let store = self.store.clone();
        store.run(Op::Abort, &self.name, self.upload.abort()).await
    }
}

/// A state of `count` records of about `value_bytes` each, the same for the same numbers.
pub fn state(
    group: &GroupId,
    index: u64,
    count: usize,
    value_bytes: usize,
) -> (SnapshotInfo, Vec<Record>) {
    let records: Vec<Record> = (0..count).map(|i| record(index, i, value_bytes)).collect();
    let mut state_hash = StateHash::new();
    for (key, value) in &records {
        state_hash.add(key, value);
    }
    let node = NodeInfo {
        name: "node1".to_owned(),
        api_url: "http://127.0.0.1:6100".to_owned(),
        peer_addr: "127.0.0.1:6101".to_owned(),
    };
    let info = SnapshotInfo {
        cluster: ClusterId::new("0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70", 1),
        group: group.clone(),
        position: Position::new(3, 1, index),
        membership: Membership {
            position: Some(Position::new(1, 1, 1)),
            voters: vec![[1].into()],
            nodes: [(1, node)].into(),
        },
        state_hash,
        created_us: 1_790_000_000_000_000,
        first_time_us: 1_780_000_000_000_000,
        last_time_us: 1_789_999_999_000_000,
    };
    (info, records)
}

/// [`state`] as a view to build from.
pub fn view(group: &GroupId, index: u64, count: usize, value_bytes: usize) -> StateView {
    let (info, records) = state(group, index, count, value_bytes);
    StateView {
        info,
        records: Box::new(records.into_iter().map(Ok)),
    }
}

fn record(index: u64, i: usize, value_bytes: usize) -> Record {
    let key = format!("key/{i:08}").into_bytes();
    // Half of it compresses, half does not: a hash's output as far as it goes.
    let mut noise = vec![0; value_bytes / 2];
    blake3::Hasher::new()
        .update(&index.to_le_bytes())
        .update(&key)
        .finalize_xof()
        .fill(&mut noise);
    let mut value = format!("{{\"index\":{index},\"i\":{i},").into_bytes();
    value.resize(
        value_bytes.saturating_sub(noise.len()).max(value.len()),
        b' ',
    );
    value.extend(noise);
    (key.into(), value.into())
}
