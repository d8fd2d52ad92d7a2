//! `s3s-fs` with writes of one object one after the other, so that its check "is it there?" and its write are one step.
//! Without this, 200 of 200 races between conditional creates had more than one winner.

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

use crate::ConditionalWrites;
use crate::checksums::{compare, said};
use crate::locks::KeyLocks;
use crate::together::Together;

/// The operations that an object store client needs; all others answer that they are not implemented.
#[derive(Debug)]
pub(crate) struct HonestS3 {
    files: FileSystem,
    locks: KeyLocks,
    together: Together,
    conditional_writes: ConditionalWrites,
}

impl HonestS3 {
    pub(crate) fn new(files: FileSystem, conditional_writes: ConditionalWrites) -> Self {
        Self {
            files,
            locks: KeyLocks::default(),
            together: Together::default(),
            conditional_writes,
        }
    }

    /// What becomes of a write's condition.
    fn judge(&self, condition: &mut Option<IfNoneMatch>) -> S3Result<()> {
        if condition.is_none() {
            return Ok(());
        }
        match self.conditional_writes {
            ConditionalWrites::Honoured | ConditionalWrites::Racing => Ok(()),
            ConditionalWrites::Ignored => {
                *condition = None;
                Ok(())
            }
            ConditionalWrites::Refused => Err(s3_error!(
                InvalidArgument,
                "If-None-Match is not taken here"
            )),
            ConditionalWrites::NotImplemented => Err(s3_error!(
                NotImplemented,
                "a header that you provided implies functionality that is not implemented"
            )),
        }
    }

    /// The look of a store that looks first and writes then: from here on the condition is forgotten.
    async fn look_first(&self, req: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let look = S3Request {
            input: HeadObjectInput {
                bucket: bucket.clone(),
                key: key.clone(),
                ..HeadObjectInput::default()
            },
            method: req.method.clone(),
            uri: req.uri.clone(),
            headers: req.headers.clone(),
            extensions: req.extensions.clone(),
            credentials: req.credentials.clone(),
            region: req.region.clone(),
            service: req.service.clone(),
            trailing_headers: None,
        };
        if self.files.head_object(look).await.is_ok() {
            return Err(s3_error!(PreconditionFailed, "it is there already"));
        }
        self.together.wait(&bucket, &key).await;
        req.input.if_none_match = None;
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3 for HonestS3 {
    async fn put_object(
        &self,
        mut req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.judge(&mut req.input.if_none_match)?;
        let said = said!(req.input);
        compare(&mut req.input.body, &said).await?;
        if self.conditional_writes == ConditionalWrites::Racing && req.input.if_none_match.is_some()
        {
            self.look_first(&mut req).await?;
        }
        let _writing = self.locks.lock(&req.input.bucket, &req.input.key).await;
        self.files.put_object(req).await
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.judge(&mut req.input.if_none_match)?;
        let _writing = self.locks.lock(&req.input.bucket, &req.input.key).await;
        self.files.complete_multipart_upload(req).await
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let _writing = self.locks.lock(&req.input.bucket, &req.input.key).await;
        self.files.copy_object(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let _writing = self.locks.lock(&req.input.bucket, &req.input.key).await;
        self.files.delete_object(req).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.files.delete_objects(req).await
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(req).await
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(req).await
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.files.list_objects(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(req).await
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.files.list_buckets(req).await
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.get_bucket_location(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.files.create_multipart_upload(req).await
    }

    async fn upload_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let said = said!(req.input);
        compare(&mut req.input.body, &said).await?;
        self.files.upload_part(req).await
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        self.files.list_parts(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.files.abort_multipart_upload(req).await
    }
}
