//! For a probe: bodies that become others on the way to a store, after their checksum was written into the header.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
};

use crate::repository::ALTERED_SUFFIX;

/// Connects as another one does, and alters what is put under names that end in [`ALTERED_SUFFIX`].
#[derive(Debug)]
pub(super) struct AlteringConnector<C>(pub(super) C);

impl<C: HttpConnector> HttpConnector for AlteringConnector<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Altering(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Altering(HttpClient);

#[async_trait]
impl HttpService for Altering {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, mut body) = request.into_parts();
        if head.uri.path().ends_with(ALTERED_SUFFIX) {
            // As long as it was, or the length alone would give it away.
            body = vec![b'x'; body.content_length()].into();
        }
        self.0.execute(HttpRequest::from_parts(head, body)).await
    }
}
