//! Image references: `nginx`, `docker.io/library/nginx:1.27`, `registry:5000/team/app@sha256:…`, or a tag and a digest.
//!
//! The grammar is the distribution project's, from `oci-spec`; here are the short names of docker.io and the two names
//! that a pulled image gets: by tag and by digest.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as Spec;

use crate::Digest;
use crate::error::{ErrorKind, Kind};

/// A fully qualified name of an image: registry, repository, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    spec: Spec,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The grammar refuses it.
    #[error("image name {name:?}")]
    Malformed {
        /// As given.
        name: String,
        /// What is wrong with it.
        source: oci_spec::distribution::ParseError,
    },
    /// The digest is of an unknown algorithm.
    #[error("image name {name:?}")]
    Digest {
        /// As given.
        name: String,
        /// What is wrong with it.
        source: crate::digest::Error,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { name, .. } if name.starts_with("http://") || name.starts_with("https://") => {
                Some("leave the scheme away: registry.example.com/team/app:tag".into())
            }
            Self::Malformed { name, .. } if name.chars().any(char::is_uppercase) => {
                Some("repository names are lower case".into())
            }
            Self::Malformed { .. } | Self::Digest { .. } => None,
        }
    }
}

impl Reference {
    /// The registry's host and port; `docker.io` for short names.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.spec.registry()
    }

    /// The repository below the registry, with `library/` for Docker's official images.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.spec.repository()
    }

    /// The tag, if one was given or implied.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.spec.tag()
    }

    /// The digest, if one was given.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `registry/repository`, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    #[must_use]
    pub fn selector(&self) -> String {
        match (self.digest, self.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        }
    }

    /// `registry/repository:tag`, the name under which the image is listed; absent for a reference by digest alone.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// `registry/repository@digest`.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name: String = text.chars().take(600).collect();
        let spec = Spec::try_from(text).map_err(|source| Error::Malformed { name: name.clone(), source })?;
        let digest =
            spec.digest().map(str::parse).transpose().map_err(|source| Error::Digest { name, source })?;
        Ok(Self { spec, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.spec, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_like_dockers() {
        let hex = "a".repeat(64);
        let table = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app", "docker.io/team/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            (&format!("quay.io/a/b@sha256:{hex}"), &format!("quay.io/a/b@sha256:{hex}")),
            (&format!("a:t@sha256:{hex}"), &format!("docker.io/library/a:t@sha256:{hex}")),
        ];
        for (given, expected) in table {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), expected, "{given}");
        }
        for bad in ["", "UPPER", "a b", "http://x/y", "x@sha256:abc", "-x", "a/../b", &"x".repeat(400)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let digest = Digest::of(b"");
        let reference: Reference = format!("app:v1@{digest}").parse().unwrap();
        assert_eq!(reference.selector(), digest.to_string());
        assert_eq!(reference.tagged().unwrap(), "docker.io/library/app:v1");
    }
}
