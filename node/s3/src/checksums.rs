//! Checksums in headers, compared before anything is written: `s3s-fs` compares those of a put when the object is there already, and
//! those of a part not at all.

use futures::TryStreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{Body, S3Result, s3_error};

/// Refuses a body that is not what its header says, and puts it back otherwise. One without a checksum is left to stream.
pub(crate) async fn compare(body: &mut Option<StreamingBlob>, said: &Checksum) -> S3Result<()> {
    let mut hasher = ChecksumHasher {
        crc32: said.checksum_crc32.as_ref().map(|_| Default::default()),
        crc32c: said.checksum_crc32c.as_ref().map(|_| Default::default()),
        sha1: said.checksum_sha1.as_ref().map(|_| Default::default()),
        sha256: said.checksum_sha256.as_ref().map(|_| Default::default()),
        crc64nvme: said.checksum_crc64nvme.as_ref().map(|_| Default::default()),
    };
    if *said == Checksum::default() {
        return Ok(());
    }
    let Some(stream) = body.take() else {
        return Ok(());
    };
    let pieces: Vec<_> = stream
        .try_collect()
        .await
        .map_err(|error| s3_error!(IncompleteBody, "the body broke off: {error}"))?;
    let whole = pieces.concat();
    hasher.update(&whole);
    if hasher.finalize() != *said {
        return Err(s3_error!(
            BadDigest,
            "the body is not what its checksum says"
        ));
    }
    *body = Some(StreamingBlob::from(Body::from(whole)));
    Ok(())
}

/// What a request's headers say of its body.
macro_rules! said {
    ($input:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32.clone(),
            checksum_crc32c: $input.checksum_crc32c.clone(),
            checksum_sha1: $input.checksum_sha1.clone(),
            checksum_sha256: $input.checksum_sha256.clone(),
            checksum_crc64nvme: $input.checksum_crc64nvme.clone(),
            ..s3s::dto::Checksum::default()
        }
    };
}
pub(crate) use said;
