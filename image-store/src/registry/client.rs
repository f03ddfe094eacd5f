//! One repository at its endpoints: manifests whole, blobs as streams, each request with the right authorization.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{RequestBuilder, Response, StatusCode};

use super::auth::{self, Authorization};
use super::error::without_query;
use super::hosts::{self, Endpoint};
use super::transport::{Transport, status_error};
use super::{Error, login};
use crate::manifest::{ACCEPT, DOCUMENT_LIMIT};
use crate::{Credentials, Digest, Reference};

/// A repository, as one caller with its own credentials sees it.
#[derive(Debug)]
pub struct Registry {
    http: Arc<Transport>,
    endpoints: Vec<Endpoint>,
    credentials: Option<Credentials>,
    authorizations: Mutex<HashMap<usize, Authorization>>,
}

/// A document that came, with its digest.
#[derive(Debug, Clone)]
pub struct Document {
    /// The bytes as they came.
    pub content: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// The server's word about them.
    pub content_type: Option<String>,
}

/// A blob being sent from some offset on.
#[derive(Debug)]
pub struct BlobStream {
    /// The body.
    pub response: Response,
    /// Which byte of the blob the body begins with.
    pub offset: u64,
    /// Where it comes from.
    pub url: String,
}

impl Registry {
    /// The repository of a reference. No request is made.
    pub fn new(
        http: Arc<Transport>,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self, Error> {
        let endpoints = hosts::endpoints(http.config(), reference)?;
        Ok(Self { http, endpoints, credentials, authorizations: Mutex::default() })
    }

    /// The HTTP side.
    #[must_use]
    pub fn http(&self) -> &Transport {
        &self.http
    }

    /// How many endpoints there are: 0 is the most preferred, the last is the origin.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether tags may be asked at the endpoint.
    #[must_use]
    pub fn resolves(&self, endpoint: usize) -> bool {
        self.endpoints.get(endpoint).is_some_and(|e| e.resolves)
    }

    /// Fetches a manifest by tag or digest from one endpoint and checks its digest.
    pub async fn manifest(
        &self,
        endpoint: usize,
        selector: &str,
        expected: Option<Digest>,
    ) -> Result<Document, Error> {
        let url = self.url(endpoint, "manifests", selector)?;
        let prepare = |request: RequestBuilder| request.header("accept", ACCEPT);
        let response = self.request(endpoint, &url, &prepare).await?;
        if response.status() != StatusCode::OK {
            return Err(status_error(&url, response).await);
        }
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (content_type, promised) = (text("content-type"), text("docker-content-digest"));
        let content_type = content_type.map(|t| t.split(';').next().unwrap_or_default().trim().to_owned());
        let content = self.http.body(response, &url, DOCUMENT_LIMIT).await?;
        let digest = Digest::of(&content);
        // The header may be of an algorithm that is not ours; one of ours must be right.
        let promised = promised.and_then(|promised| promised.parse().ok());
        if let Some(expected) =
            expected.or(promised).filter(|wanted| *wanted != digest).or(promised.filter(|p| *p != digest))
        {
            return Err(Error::Digest { url: without_query(&url), expected, actual: digest });
        }
        Ok(Document { content, digest, content_type })
    }

    /// Fetches a small blob whole (a configuration) and checks size and digest.
    pub async fn small_blob(&self, endpoint: usize, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let stream = self.blob(endpoint, digest, 0).await?;
        let content = self.http.body(stream.response, &stream.url, DOCUMENT_LIMIT).await?;
        let actual = Digest::of(&content);
        if content.len() as u64 != size {
            return Err(Error::Size { url: stream.url, expected: size, actual: content.len() as u64 });
        }
        if actual != *digest {
            return Err(Error::Digest { url: stream.url, expected: *digest, actual });
        }
        Ok(content)
    }

    /// Asks for a blob from `offset` on. The server may begin earlier: `BlobStream::offset` tells.
    pub async fn blob(&self, endpoint: usize, digest: &Digest, offset: u64) -> Result<BlobStream, Error> {
        self.blob_range(endpoint, digest, offset, None).await
    }

    /// Asks for the bytes of a blob from `offset` to before `end`. The server may begin earlier and go on longer.
    pub async fn blob_range(
        &self,
        endpoint: usize,
        digest: &Digest,
        offset: u64,
        end: Option<u64>,
    ) -> Result<BlobStream, Error> {
        let url = self.url(endpoint, "blobs", &digest.to_string())?;
        // No If-Range: tags differ between the hosts behind one name, the digest decides in the end. Identity, as a
        // transparently compressed answer would shift the ranges.
        let range = match (offset, end) {
            (0, None) => None,
            (from, None) => Some(format!("bytes={from}-")),
            (from, Some(end)) => Some(format!("bytes={from}-{}", end.saturating_sub(1))),
        };
        let prepare = |request: RequestBuilder| {
            let request = request.header("accept-encoding", "identity");
            range.iter().fold(request, |request, range| request.header("range", range))
        };
        let response = self.request(endpoint, &url, &prepare).await?;
        let printed = without_query(&url);
        match response.status() {
            StatusCode::OK => Ok(BlobStream { response, offset: 0, url: printed }),
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                match range.and_then(range_start) {
                    Some(begins) if begins <= offset => {
                        Ok(BlobStream { response, offset: begins, url: printed })
                    }
                    _ => Err(Error::Protocol {
                        url: printed,
                        what: format!("asked for bytes from {offset} on, got {range:?}"),
                    }),
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                let begin = self
                    .request(endpoint, &url, &|request| request.header("accept-encoding", "identity"))
                    .await?;
                match begin.status() {
                    StatusCode::OK => Ok(BlobStream { response: begin, offset: 0, url: printed }),
                    _ => Err(status_error(&url, begin).await),
                }
            }
            _ => Err(status_error(&url, response).await),
        }
    }

    fn url(&self, endpoint: usize, kind: &str, selector: &str) -> Result<String, Error> {
        let unknown = || Error::Protocol { url: selector.to_owned(), what: "no endpoint is left".into() };
        let place = self.endpoints.get(endpoint).ok_or_else(unknown)?;
        let url = format!("{}/{}/{kind}/{selector}", place.base, place.repository);
        Ok(match &place.namespace {
            Some(namespace) => format!("{url}?ns={namespace}"),
            None => url,
        })
    }

    // A request, once more with an answer to the challenge when the first one is refused.
    async fn request(
        &self,
        endpoint: usize,
        url: &str,
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, Error> {
        let Some(place) = self.endpoints.get(endpoint) else {
            return Err(Error::Protocol { url: url.to_owned(), what: "no such endpoint".into() });
        };
        let client = self.http.client(&place.tls)?;
        let build = |authorization: Option<&Authorization>| {
            let mut request = prepare(client.get(url));
            for (name, value) in &place.headers {
                request = request.header(name, value);
            }
            match authorization {
                Some(Authorization::Basic(username, password)) => {
                    request.basic_auth(username, Some(password))
                }
                Some(Authorization::Bearer(token, _)) => request.bearer_auth(token),
                None => request,
            }
        };
        let known = self.known(endpoint);
        let response = self.http.send(build(known.as_ref()), url).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let headers = response.headers().get_all("www-authenticate").iter();
        let challenges: Vec<_> =
            headers.filter_map(|v| v.to_str().ok()).flat_map(auth::parse_challenges).collect();
        let Some(authorization) = self.authorize(place, &challenges).await? else { return Ok(response) };
        self.remember(endpoint, authorization.clone());
        self.http.send(build(Some(&authorization)), url).await
    }

    async fn authorize(
        &self,
        place: &Endpoint,
        challenges: &[auth::Challenge],
    ) -> Result<Option<Authorization>, Error> {
        // What the caller gave belongs to the registry it named; a mirror has its own entry in the files or gets none.
        let credentials = match &self.credentials {
            Some(credentials) if place.origin => credentials.clone(),
            _ => login::look_up(self.http.config(), &place.host, &place.repository).await?,
        };
        if !credentials.registry_token.is_empty() {
            return Ok(Some(Authorization::Bearer(credentials.registry_token, None)));
        }
        let scope = format!("repository:{}:pull", place.repository);
        auth::answer(&self.http, challenges, &credentials, &scope, place.base.starts_with("https:")).await
    }

    fn known(&self, endpoint: usize) -> Option<Authorization> {
        let known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&endpoint).filter(|authorization| authorization.is_fresh()).cloned()
    }

    fn remember(&self, endpoint: usize, authorization: Authorization) {
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint, authorization);
    }
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(..)")
    }
}

// bytes 100-199/200
fn range_start(value: &str) -> Option<u64> {
    value.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(range_start("bytes 100-199/200"), Some(100));
        assert_eq!(range_start("bytes */200"), None);
        assert_eq!(range_start("lines 1-2/3"), None);
    }
}
