//! HTTP: clients by TLS settings, bounded bodies, waiting with limits.
//!
//! Redirects are followed ten deep, never from HTTPS to HTTP; the `Authorization` header stays behind when the host
//! changes (reqwest sees to that), as blobs mostly lie at presigned addresses of another host.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};

use super::error::without_query;
use super::{Config, Error, retry};

const REDIRECTS: usize = 10;
const MESSAGE_LIMIT: u64 = 16 << 10;

/// How the other side proves itself, and this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Files of certificates to trust beside the system's.
    pub ca: Vec<PathBuf>,
    /// Certificate and key of the client, in PEM; the key may be in the same file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Trust anybody.
    pub skip_verify: bool,
}

/// The HTTP clients of a process.
#[derive(Debug)]
pub struct Transport {
    config: Config,
    plain: Client,
    special: Mutex<HashMap<Tls, Client>>,
}

impl Transport {
    /// Sets the ordinary client up.
    pub fn new(config: Config) -> Result<Self, Error> {
        // A second call finds a provider already there, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = ordinary(&config)?;
        Ok(Self { config, plain, special: Mutex::default() })
    }

    /// The configuration that it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The client that trusts the system's certificates.
    #[must_use]
    pub const fn plain(&self) -> &Client {
        &self.plain
    }

    /// The client for these settings.
    pub fn client(&self, tls: &Tls) -> Result<Client, Error> {
        if *tls == Tls::default() {
            return Ok(self.plain.clone());
        }
        let mut special = self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = special.get(tls) {
            return Ok(client.clone());
        }
        let client = with_tls(&self.config, tls)?;
        special.insert(tls.clone(), client.clone());
        Ok(client)
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&self, request: RequestBuilder, url: &str) -> Result<Response, Error> {
        // The connection has its own, shorter limit; this one is for a server that accepts and says nothing.
        let limit = self.config.stall_timeout;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(sent) => sent.map_err(|source| Error::request(url, source)),
            Err(_) => Err(Error::Stalled { url: without_query(url), after: limit }),
        }
    }

    /// The next piece of a body; nothing at its end.
    pub async fn chunk(&self, response: &mut Response, url: &str) -> Result<Option<Bytes>, Error> {
        let limit = self.config.stall_timeout;
        match tokio::time::timeout(limit, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|source| Error::request(url, source)),
            Err(_) => Err(Error::Stalled { url: without_query(url), after: limit }),
        }
    }

    /// A whole body of at most `limit` bytes.
    pub async fn body(&self, mut response: Response, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let too_large = || Error::TooLarge { url: without_query(url), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, url).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn builder(config: &Config) -> Result<reqwest::ClientBuilder, Error> {
    let client = |source| Error::Client { source };
    let except = config.proxies.except.as_deref().and_then(reqwest::NoProxy::from_string);
    let mut builder = Client::builder()
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .redirect(Policy::custom(redirect))
        .referer(false)
        .tcp_nodelay(true)
        .http2_adaptive_window(true)
        .pool_idle_timeout(Duration::from_secs(30))
        .no_proxy();
    if let Some(proxy) = &config.proxies.http {
        builder = builder.proxy(reqwest::Proxy::http(proxy).map_err(client)?.no_proxy(except.clone()));
    }
    if let Some(proxy) = &config.proxies.https {
        builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(client)?.no_proxy(except));
    }
    Ok(builder)
}

fn ordinary(config: &Config) -> Result<Client, Error> {
    if let Ok(client) = builder(config)?.build() {
        return Ok(client);
    }
    // A machine without any CA certificates still pulls over plain HTTP.
    tracing::warn!("no system certificates found: registries with TLS need their CA in hosts.toml");
    builder(config)?.tls_certs_only([]).build().map_err(|source| Error::Client { source })
}

fn with_tls(config: &Config, tls: &Tls) -> Result<Client, Error> {
    let read = |path: &PathBuf| {
        crate::store::file::read_bounded(path, 4 << 20)
            .map_err(|error| Error::Config { path: path.clone(), what: error.to_string() })
    };
    let wrong = |path: &PathBuf, error: reqwest::Error| Error::Config {
        path: path.clone(),
        what: crate::error::chain(&error),
    };
    let mut builder = builder(config)?;
    let mut certificates = Vec::new();
    for path in &tls.ca {
        certificates
            .extend(reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(|error| wrong(path, error))?);
    }
    if !certificates.is_empty() {
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some((certificate, key)) = tls.client.first() {
        let mut pem = read(certificate)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        builder =
            builder.identity(reqwest::Identity::from_pem(&pem).map_err(|error| wrong(certificate, error))?);
    }
    if tls.skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|source| Error::Client { source })
}

fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    let from_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if from_secure && attempt.url().scheme() != "https" {
        return attempt.error("redirect from HTTPS to plain HTTP refused");
    }
    attempt.follow()
}

/// The error that an answer stands for, with the registry's own words.
pub async fn status_error(url: &str, mut response: Response) -> Error {
    let status = response.status();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|v| v.to_str().ok())
        .and_then(retry::parse_retry_after);
    let mut body = Vec::new();
    // The words are a courtesy: whatever goes wrong with them, the status is the error.
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MESSAGE_LIMIT {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    Error::Status { url: without_query(url), status, message: message(&body), retry_after }
}

// {"errors":[{"code":"…","message":"…","detail":…}]}
fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let error = &value["errors"][0];
    let text = |key: &str| error[key].as_str().unwrap_or_default();
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    match (text("code"), text("message")) {
        ("", message) => printable(message),
        (code, "") => printable(code),
        (code, message) => printable(&format!("{message} ({code})")),
    }
}
