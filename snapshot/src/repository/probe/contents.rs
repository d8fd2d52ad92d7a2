//! Bytes in and out: whole objects, ranges, parts, large ones, and what a deletion really does.

use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStoreExt as _, PutPayload};

use super::Verdict;
use super::long::{Found, LongProbe};
use crate::error::{Kind, StoreError};
use crate::paths;
use crate::repository::{ALTERED_SUFFIX, classify};

/// S3 wants this of every part but the last.
const PART_BYTES: usize = 5 << 20;
/// One read of the large object.
const PIECE_BYTES: u64 = 8 << 20;

/// What stores answer to content that is not what its checksum says: not to keys, rights or haste, of which this would say nothing.
const REFUSES_CONTENT: [u16; 4] = [400, 409, 412, 422];

/// Bytes that no proxy makes smaller, the same for the same seed.
fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut content = vec![0; bytes];
    hasher.finalize_xof().fill(&mut content);
    Bytes::from(content)
}

impl LongProbe {
    pub(super) async fn read_after_write(&self) -> Found {
        for round in 0..4_u64 {
            let content = noise(1000, round);
            let name = format!("written-{round}");
            self.put(&name, &content).await?;
            if self.get(&name).await? != content {
                let object = self.name_of(&name);
                let detail = "what came back is not what was put";
                return Err(self
                    .repository
                    .error(Kind::Damaged, "get", &object, detail, ""));
            }
        }
        Ok((
            Verdict::Good,
            "4 objects were read as soon as they were put".into(),
        ))
    }

    pub(super) async fn list_after_write(&self) -> Found {
        for round in 0..4 {
            let name = format!("listed-{round}");
            self.put(&name, &Bytes::from_static(b"listed")).await?;
            if !self.listed().await?.contains(&self.name_of(&name)) {
                return Ok((
                    Verdict::Failed,
                    format!("object {round} of 4 was put and not listed"),
                ));
            }
        }
        Ok((
            Verdict::Good,
            "4 objects were listed as soon as they were put".into(),
        ))
    }

    pub(super) async fn missing_object(&self) -> Found {
        let name = "missing";
        if self.head(name).await?.is_some() {
            return Ok((
                Verdict::Failed,
                "an object that was never put is there".into(),
            ));
        }
        match self.get(name).await {
            Err(error) if error.kind == Kind::NotFound => Ok((
                Verdict::Good,
                "an object that was never put is not found".into(),
            )),
            Err(error) => Err(error),
            Ok(_) => Ok((
                Verdict::Failed,
                "an object that was never put can be read".into(),
            )),
        }
    }

    pub(super) async fn range_reads(&self) -> Found {
        let content = noise(10_000, 7);
        self.put("range", &content).await?;
        let (object, path) = self.object("range")?;
        for range in [0..1_u64, 0..10_000, 9_999..10_000, 4_321..8_765] {
            let store = self.store();
            let read = store.get_range(&path, range.clone());
            let read = self.must("get", &object, read).await?;
            let wanted = content.slice(range.start as usize..range.end as usize);
            if read != wanted {
                let found = format!(
                    "bytes {} to {} come back as {} others",
                    range.start,
                    range.end,
                    read.len()
                );
                return Ok((Verdict::Failed, found));
            }
        }
        let store = self.store();
        let beyond = self
            .ask("get", &object, store.get_range(&path, 20_000..20_010))
            .await?;
        Ok(match beyond {
            Err(_) => (
                Verdict::Good,
                "4 ranges are right, one beyond the end is refused".into(),
            ),
            Ok(bytes) if bytes.is_empty() => (
                Verdict::Good,
                "4 ranges are right, one beyond the end is empty".into(),
            ),
            Ok(bytes) => (
                Verdict::Failed,
                format!("a range beyond the end gives {} bytes", bytes.len()),
            ),
        })
    }

    pub(super) async fn suffix_read(&self) -> Found {
        let content = noise(10_000, 8);
        self.put("suffix", &content).await?;
        let (object, path) = self.object("suffix")?;
        let store = self.store();
        let options = GetOptions {
            range: Some(GetRange::Suffix(68)),
            ..GetOptions::default()
        };
        let read = async { store.get_opts(&path, options).await?.bytes().await };
        Ok(match self.ask("get", &object, read).await? {
            Ok(read) if read == content.slice(content.len() - 68..) => {
                (Verdict::Good, "the last 68 bytes are right".into())
            }
            Ok(read) => (
                Verdict::Limited,
                format!("{} bytes come back for the last 68", read.len()),
            ),
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => (Verdict::NotOffered, "the store reads no suffixes".into()),
            Err(error) => return Err(self.repository.classify("get", &object, &error)),
        })
    }

    pub(super) async fn multipart_complete(&self) -> Found {
        let content = noise(PART_BYTES + 12_345, 9);
        let (object, path) = self.object("parts")?;
        let store = self.store();
        let mut upload = self
            .must("put", &object, store.put_multipart(&path))
            .await?;
        let sent = self.send(&mut *upload, &object, &content).await;
        let early = self.head("parts").await;
        if let Err(error) = sent {
            self.abort(&mut *upload, &object).await;
            return Err(error);
        }
        if let Err(error) = self.must("put", &object, upload.complete()).await {
            self.abort(&mut *upload, &object).await;
            return Err(error);
        }
        if early?.is_some() {
            return Ok((
                Verdict::Failed,
                "the object is there before it is complete".into(),
            ));
        }
        if self.get("parts").await? != content {
            return Ok((Verdict::Failed, "the object is not its parts".into()));
        }
        Ok((
            Verdict::Good,
            "absent before the end, whole after it".into(),
        ))
    }

    pub(super) async fn multipart_abort(&self) -> Found {
        let content = noise(PART_BYTES, 10);
        let (object, path) = self.object("aborted")?;
        let store = self.store();
        let mut upload = self
            .must("put", &object, store.put_multipart(&path))
            .await?;
        let sent = self.send(&mut *upload, &object, &content).await;
        let aborted = self.ask("abort", &object, upload.abort()).await?;
        sent?;
        Ok(match (aborted, self.head("aborted").await?) {
            (Ok(()), None) => (Verdict::Good, "nothing is there afterwards".into()),
            (_, Some(_)) => (Verdict::Failed, "the object is there all the same".into()),
            (Err(error), None) => {
                let error = self.repository.classify("abort", &object, &error);
                let found = format!("parts stay behind and cost money: {}", error.detail);
                (Verdict::Limited, found)
            }
        })
    }

    async fn send(
        &self,
        upload: &mut dyn MultipartUpload,
        object: &str,
        content: &Bytes,
    ) -> Result<(), StoreError> {
        let mut rest = content.clone();
        while !rest.is_empty() {
            let part = rest.split_to(PART_BYTES.min(rest.len()));
            let sending = upload.put_part(PutPayload::from_bytes(part));
            self.must("put", object, sending).await?;
        }
        Ok(())
    }

    /// What is told is the error that led here.
    async fn abort(&self, upload: &mut dyn MultipartUpload, object: &str) {
        let _ = self.ask("abort", object, upload.abort()).await;
    }

    pub(super) async fn delete_tells_the_truth(&self) -> Found {
        let name = "deleted";
        self.put(name, &Bytes::from_static(b"deleted")).await?;
        let (object, path) = self.object(name)?;
        let store = self.store();
        if let Err(error) = self.ask("delete", &object, store.delete(&path)).await? {
            let error = self.repository.classify("delete", &object, &error);
            let found = format!("snapshots stay for ever: {}", error.detail);
            return Ok((Verdict::Limited, found));
        }
        if self.head(name).await?.is_some() {
            return Ok((
                Verdict::Limited,
                "it says yes and does nothing: snapshots stay for ever".into(),
            ));
        }
        if self.listed().await?.contains(&object) {
            return Ok((Verdict::Limited, "what is deleted is listed still".into()));
        }
        Ok((
            Verdict::Good,
            "what is deleted is gone, and not listed".into(),
        ))
    }

    pub(super) async fn bulk_delete(&self) -> Found {
        let Some(bulk) = &self.plan.bulk else {
            return Ok((Verdict::NotOffered, "this kind of store has none".into()));
        };
        let mut objects = Vec::new();
        for n in 0..3 {
            let name = format!("bulk-{n}");
            self.put(&name, &Bytes::from_static(b"bulk")).await?;
            objects.push((name.clone(), self.object(&name)?.1));
        }
        // One that is not there: deleted, or not found, but not an end to the others.
        objects.push(("bulk-none".to_owned(), self.object("bulk-none")?.1));
        let locations: Vec<_> = objects.iter().map(|(_, path)| Ok(path.clone())).collect();
        let store = bulk.inner.slot.get();
        let deleting = async {
            let answers = store.delete_stream(futures::stream::iter(locations).boxed());
            Ok(answers.map_ok(|_| ()).collect::<Vec<_>>().await)
        };
        let answers = self.must("delete", paths::PROBES, deleting).await?;
        let told = answers.iter().filter(|answer| answer.is_ok()).count();
        let mut there = 0;
        for (name, _) in &objects {
            there += usize::from(self.head(name).await?.is_some());
        }
        Ok(match (told, there) {
            (3 | 4, 0) => (Verdict::Good, "three are gone, and it says so".into()),
            (told, 0) => (
                Verdict::Limited,
                format!("three are gone, and it says so of {told}"),
            ),
            (told, there) => (
                Verdict::Limited,
                format!("{there} of three are there, and it says of {told} that they are gone"),
            ),
        })
    }

    pub(super) async fn checksum_headers(&self) -> Found {
        let Some(checksums) = &self.plan.checksums else {
            return Ok((Verdict::NotOffered, "this kind of store has none".into()));
        };
        let content = noise(100_000, 11);
        let (object, path) = self.object("summed")?;
        let store = checksums.inner.slot.get();
        let putting = store.put(&path, PutPayload::from_bytes(content.clone()));
        if let Err(error) = self.ask("put", &object, putting).await? {
            let error = checksums.classify("put", &object, &error);
            let found = format!("a put with x-amz-checksum-sha256 fails: {}", error.detail);
            return Ok((Verdict::Limited, found));
        }
        if self.get("summed").await? != content {
            return Ok((
                Verdict::Limited,
                "what was put with a checksum comes back otherwise".into(),
            ));
        }
        self.checksum_compared().await
    }

    /// Whether a checksum is looked at: a body that is not its own must be refused.
    async fn checksum_compared(&self) -> Found {
        let unseen = |why: &str| {
            let found = format!("taken and read back; whether it is compared is not seen: {why}");
            Ok((Verdict::Limited, found))
        };
        let Some(altered) = &self.plan.altered else {
            return unseen("no body was altered");
        };
        let store = altered.inner.slot.get();
        let content = noise(1_000, 12);
        // First one that is its own, so that what is refused then is the checksum and not the way in which it is sent.
        let (object, path) = self.object("summed-same")?;
        let putting = store.put(&path, PutPayload::from_bytes(content.clone()));
        if let Err(error) = self.ask("put", &object, putting).await? {
            let error = altered.classify("put", &object, &error);
            return unseen(&format!("a body without a signature: {}", error.detail));
        }
        let name = format!("summed{ALTERED_SUFFIX}");
        let (object, path) = self.object(&name)?;
        let putting = store.put(&path, PutPayload::from_bytes(content));
        let answer = self.ask("put", &object, putting).await?;
        if let Err(error) = &answer
            && !classify::status(&error.to_string()).is_some_and(|s| REFUSES_CONTENT.contains(&s))
        {
            return Err(altered.classify("put", &object, error));
        }
        Ok(match (answer, self.head(&name).await?) {
            (Err(_), None) => (
                Verdict::Good,
                "the right x-amz-checksum-sha256 is taken, a wrong one refused".into(),
            ),
            (Err(_), Some(_)) => (
                Verdict::Failed,
                "a wrong x-amz-checksum-sha256 is refused, and yet the object is there".into(),
            ),
            (Ok(_), _) => (
                Verdict::Ignored,
                "accepted and ignored: a wrong x-amz-checksum-sha256 is taken too".into(),
            ),
        })
    }

    /// One upload as snapshots do it, and one reading by ranges.
    pub(super) async fn big_object(&self) -> Found {
        let Some(size) = self.plan.big_bytes else {
            return Ok((Verdict::Good, "not asked for".into()));
        };
        let began = Instant::now();
        let (object, path) = self.object("big")?;
        let store = self.store();
        let mut upload = self
            .must("put", &object, store.put_multipart(&path))
            .await?;
        let mut sent = blake3::Hasher::new();
        let mut offset = 0;
        while offset < size {
            if self.is_stopped() {
                self.abort(&mut *upload, &object).await;
                return Ok((Verdict::NotOffered, "stopped".into()));
            }
            let piece = noise(PIECE_BYTES.min(size - offset) as usize, 100 + offset);
            sent.update(&piece);
            offset += piece.len() as u64;
            let sending = upload.put_part(PutPayload::from_bytes(piece));
            if let Err(error) = self.must("put", &object, sending).await {
                self.abort(&mut *upload, &object).await;
                return Err(error);
            }
        }
        if let Err(error) = self.must("put", &object, upload.complete()).await {
            self.abort(&mut *upload, &object).await;
            return Err(error);
        }
        let up = size as f64 / began.elapsed().as_secs_f64().max(1e-9);
        let began = Instant::now();
        let mut came = blake3::Hasher::new();
        let mut offset = 0;
        while offset < size && !self.is_stopped() {
            let range = offset..size.min(offset + PIECE_BYTES);
            let store = self.store();
            let piece = self
                .must("get", &object, store.get_range(&path, range.clone()))
                .await?;
            came.update(&piece);
            offset = range.end;
        }
        if self.is_stopped() {
            return Ok((Verdict::NotOffered, "stopped".into()));
        }
        let down = size as f64 / began.elapsed().as_secs_f64().max(1e-9);
        {
            let mut report = self.lock();
            report.upload_bytes_per_second = Some(up);
            report.download_bytes_per_second = Some(down);
        }
        let mib = size as f64 / f64::from(1 << 20);
        Ok(if came.finalize() == sent.finalize() {
            (
                Verdict::Good,
                format!("{mib:.0} MiB in parts of 8 MiB come back the same"),
            )
        } else {
            (Verdict::Failed, format!("{mib:.0} MiB come back as others"))
        })
    }
}
