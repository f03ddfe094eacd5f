//! What can go wrong with a registry, and whether a later attempt may help.

use std::path::PathBuf;
use std::time::Duration;

use crate::Digest;
use crate::error::{ErrorKind, Kind};

/// An error of talking to a registry. URLs are printed without their query: it may hold a signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer, or one cut short.
    #[error("{url}")]
    Request {
        /// What was asked.
        url: String,
        /// What the network said.
        source: reqwest::Error,
    },
    /// An answer that is an error.
    #[error("{url}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
        /// The registry's own words, cut.
        message: String,
        /// When the registry wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nothing came for too long.
    #[error("{url}: no data for {} s", after.as_secs())]
    Stalled {
        /// What was asked.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// A body longer than is allowed.
    #[error("{url}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Content that is not what its digest says.
    #[error("{url}: expected the digest {expected}, the content has {actual}")]
    Digest {
        /// What was asked.
        url: String,
        /// The promised digest.
        expected: Digest,
        /// That of what came.
        actual: Digest,
    },
    /// Fewer or more bytes than promised.
    #[error("{url}: expected {expected} bytes, {actual} came")]
    Size {
        /// What was asked.
        url: String,
        /// The promised size.
        expected: u64,
        /// The bytes that came.
        actual: u64,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: {what}")]
    Protocol {
        /// What was asked.
        url: String,
        /// How.
        what: String,
    },
    /// The token service gave no token.
    #[error("token service {realm}: {what}")]
    Token {
        /// Its address.
        realm: String,
        /// What came instead.
        what: String,
    },
    /// A configuration file is wrong.
    #[error("{}: {what}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// `registries.conf` blocks it.
    #[error("registry {registry} is blocked by {}", path.display())]
    Blocked {
        /// Which.
        registry: String,
        /// By which file.
        path: PathBuf,
    },
    /// A credential helper failed.
    #[error("credential helper {program}: {what}")]
    Helper {
        /// Its name.
        program: String,
        /// How.
        what: String,
    },
    /// The client could not be set up (certificates, proxies).
    #[error("set up the HTTP client")]
    Client {
        /// Why.
        source: reqwest::Error,
    },
}

impl Error {
    /// Whether a later attempt may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Request { source, .. } => {
                !source.is_redirect() && !source.is_builder() && !is_certificate(source)
            }
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504),
            Self::Stalled { .. } | Self::Size { .. } => true,
            _ => false,
        }
    }

    /// How long the registry asks to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn request(url: &str, source: reqwest::Error) -> Self {
        Self::Request { url: without_query(url), source: source.without_url() }
    }
}

fn is_certificate(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<rustls::Error>().is_some() {
            return true;
        }
        // std::io::Error hides what it wraps from `source`.
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && inner.is::<rustls::Error>()
        {
            return true;
        }
        source = cause.source();
    }
    false
}

/// A URL as it may be printed.
#[must_use]
pub fn without_query(url: &str) -> String {
    url.split_once('?').map_or(url, |(path, _)| path).to_owned()
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Request { .. } | Self::Stalled { .. } => ErrorKind::Unavailable,
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                429 | 500..=599 | 408 => ErrorKind::Unavailable,
                _ => ErrorKind::Invalid,
            },
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::Digest { .. } | Self::Size { .. } => ErrorKind::Corrupt,
            Self::Protocol { .. } | Self::Config { .. } | Self::Client { .. } => ErrorKind::Invalid,
            Self::Token { .. } | Self::Helper { .. } | Self::Blocked { .. } => ErrorKind::Denied,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => Some("log in (`docker login`, `skopeo login`), or check that the image exists and is public".into()),
                404 => Some("check the name and the tag".into()),
                429 => Some("the registry limits how often it may be asked; logging in raises the limit".into()),
                _ => None,
            },
            Self::Request { source, .. } if is_certificate(source) => Some(
                "give the registry's CA in /etc/coracle/certs.d/HOST/hosts.toml, or use --insecure for plain HTTP".into(),
            ),
            Self::Request { source, .. } if source.is_connect() => {
                Some("is the registry up, and is the name right? A registry without TLS needs --insecure HOST".into())
            }
            Self::Stalled { .. } => Some("what was fetched is kept; pulling again goes on from there".into()),
            _ => None,
        }
    }
}
