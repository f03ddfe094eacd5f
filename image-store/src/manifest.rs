//! Manifests and indexes, OCI and Docker schema 2: parsed with limits, never trusted, and the choice of a platform.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::Digest;
use crate::error::{ErrorKind, Kind};

/// The largest manifest, index or configuration that is read, in bytes.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;
/// More layers than this cannot be stacked by the kernel's overlay anyhow (500), and no builder makes them.
const LAYER_LIMIT: usize = 500;

/// What a manifest request accepts, for the `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const IMAGE_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not JSON of the expected shape.
    #[error("{what} does not parse")]
    Syntax {
        /// Manifest or configuration.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A configuration that does not parse.
    #[error("image configuration does not parse: {0}")]
    Config(String),
    /// Both an index and a manifest, or neither (the class of CVE-2021-41190).
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A media type that is none of an image's.
    #[error("media type {0:?} is not an image's")]
    MediaType(String),
    /// Docker schema 1.
    #[error("the manifest has the obsolete Docker schema 1")]
    Schema1,
    /// No entry for the platform.
    #[error("no image for {wanted}; there are {}", if available.is_empty() { "none" } else { available })]
    NoPlatform {
        /// What was looked for.
        wanted: Platform,
        /// What the index offers.
        available: String,
    },
    /// The configuration does not fit the manifest.
    #[error("the manifest has {manifest} layers, the configuration {config} diff-ids")]
    LayerCount {
        /// Layers in the manifest.
        manifest: usize,
        /// Diff-ids in the configuration.
        config: usize,
    },
    /// Too many layers.
    #[error("{0} layers are more than the {LAYER_LIMIT} that can be stacked")]
    TooManyLayers(usize),
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] crate::digest::Error),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPlatform { .. } => ErrorKind::NotFound,
            Self::MediaType(_) | Self::Schema1 | Self::TooManyLayers(_) => ErrorKind::Unsupported,
            Self::Syntax { .. }
            | Self::Config(_)
            | Self::Ambiguous(_)
            | Self::LayerCount { .. }
            | Self::Digest(_) => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => Some("push the image again with a current tool".into()),
            Self::NoPlatform { .. } => Some("choose another with --platform os/arch[/variant]".into()),
            _ => None,
        }
    }
}

/// An operating system and a processor, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "x86" => ("386", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// Parses `os/arch` or `os/arch/variant`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let whole = parts.next().is_none() && !os.is_empty() && !architecture.is_empty();
        whole.then_some(Self { os, architecture, variant })
    }

    // 0 fits exactly; higher fits less well. An entry without a variant is the base of its architecture.
    fn distance(&self, entry: &EntryPlatform) -> Option<u32> {
        if entry.os != self.os || entry.architecture != self.architecture {
            return None;
        }
        match (self.variant.as_deref(), entry.variant.as_deref().filter(|v| !v.is_empty())) {
            (wanted, offered) if wanted == offered => Some(0),
            (_, None) | (None, Some("v8" | "v1")) => Some(1),
            (None, Some(_)) => Some(2),
            // arm: v6 runs on v7.
            (Some(wanted), Some(offered)) if self.architecture == "arm" && offered < wanted => Some(2),
            (Some(_), Some(_)) => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An index or an image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// One entry a platform.
    Index(Vec<IndexEntry>),
    /// One image.
    Image(ImageManifest),
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest.
    pub manifest: Descriptor,
    platform: Option<EntryPlatform>,
    /// Annotation `org.opencontainers.image.ref.name` or `io.containerd.image.name`.
    pub ref_name: Option<String>,
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The configuration.
    pub config: Descriptor,
    /// From the lowest to the uppermost.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<Vec<Entry>>,
    config: Option<Entry>,
    layers: Option<Vec<Entry>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<EntryPlatform>,
    #[serde(default)]
    annotations: Option<std::collections::HashMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct EntryPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Entry {
    fn descriptor(&self) -> Result<Descriptor, Error> {
        Ok(Descriptor { media_type: self.media_type.clone(), digest: self.digest.parse()?, size: self.size })
    }
}

impl Manifest {
    /// Parses a document; `content_type` is the server's word, which counts only where the document has none.
    pub fn parse(content: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let document: Document =
            serde_json::from_slice(content).map_err(|source| Error::Syntax { what: "manifest", source })?;
        if document.fs_layers.is_some() || document.schema_version == Some(1) {
            return Err(Error::Schema1);
        }
        if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
            return Err(Error::Ambiguous("it has manifests and layers"));
        }
        let known = |text: &&str| INDEX_TYPES.contains(text) || IMAGE_TYPES.contains(text);
        let stated = document.media_type.as_deref().or(content_type.filter(known));
        match (stated, document.manifests, document.config) {
            (Some(stated), _, _) if !known(&stated) => {
                Err(Error::MediaType(stated.chars().take(120).collect()))
            }
            (Some(stated), Some(_), _) if !INDEX_TYPES.contains(&stated) => {
                Err(Error::Ambiguous("an index says that it is a manifest"))
            }
            (Some(stated), None, _) if INDEX_TYPES.contains(&stated) => {
                Err(Error::Ambiguous("a manifest says that it is an index"))
            }
            (_, Some(entries), _) => Self::index(&entries),
            (_, None, Some(config)) => Self::image(&config, &document.layers.unwrap_or_default()),
            (_, None, None) => Err(Error::Ambiguous("it has neither manifests nor a configuration")),
        }
    }

    fn index(entries: &[Entry]) -> Result<Self, Error> {
        let name = |entry: &Entry| {
            let annotations = entry.annotations.as_ref()?;
            let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            keys.iter().find_map(|key| annotations.get(*key)).cloned()
        };
        let entry = |entry: &Entry| {
            Ok(IndexEntry {
                manifest: entry.descriptor()?,
                platform: entry.platform.clone(),
                ref_name: name(entry),
            })
        };
        Ok(Self::Index(entries.iter().map(entry).collect::<Result<_, Error>>()?))
    }

    fn image(config: &Entry, layers: &[Entry]) -> Result<Self, Error> {
        if layers.len() > LAYER_LIMIT {
            return Err(Error::TooManyLayers(layers.len()));
        }
        if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
            return Err(Error::MediaType(config.media_type.chars().take(120).collect()));
        }
        let layers = layers.iter().map(Entry::descriptor).collect::<Result<_, Error>>()?;
        Ok(Self::Image(ImageManifest { config: config.descriptor()?, layers }))
    }
}

/// Chooses the entry that fits the platform best; the first of equals. Attestations (`unknown/unknown`) are passed over;
/// an entry without a platform is taken only when nothing states one.
pub fn choose<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Result<&'a IndexEntry, Error> {
    let best = entries
        .iter()
        .filter_map(|entry| Some((wanted.distance(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    if let Some(entry) = entries.iter().find(|entry| entry.platform.is_none())
        && entries.iter().all(|entry| entry.platform.is_none())
    {
        return Ok(entry);
    }
    let mut available: Vec<String> = entries.iter().filter_map(offered).take(20).collect();
    available.dedup();
    Err(Error::NoPlatform { wanted: wanted.clone(), available: available.join(", ") })
}

fn offered(entry: &IndexEntry) -> Option<String> {
    let platform = entry.platform.as_ref().filter(|p| p.os != "unknown")?;
    let short = |text: &str| text.chars().take(20).collect::<String>();
    let variant = platform.variant.as_ref().filter(|v| !v.is_empty()).map(|v| format!("/{}", short(v)));
    Some(format!("{}/{}{}", short(&platform.os), short(&platform.architecture), variant.unwrap_or_default()))
}

/// Parses an image's configuration.
pub fn parse_config(content: &[u8]) -> Result<ImageConfiguration, Error> {
    ImageConfiguration::from_reader(content).map_err(|error| Error::Config(crate::error::chain(&error)))
}

/// The layers' diff-ids, checked to be as many as the manifest has layers.
pub fn diff_ids(config: &ImageConfiguration, manifest_layers: usize) -> Result<Vec<Digest>, Error> {
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest_layers {
        return Err(Error::LayerCount { manifest: manifest_layers, config: ids.len() });
    }
    ids.iter().map(|id| id.parse().map_err(Error::from)).collect()
}

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A bare tar.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Tells it from the first bytes, which are surer than the media type: builders have mislabelled both ways.
    #[must_use]
    pub fn detect(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A Zstandard frame, or a skippable one (as stargz and zstd:chunked write).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Whether a descriptor is a layer of a file system that can be fetched.
pub fn check_layer(layer: &Descriptor) -> Result<(), Error> {
    let fits = layer.media_type.starts_with("application/vnd.oci.image.layer.v1.tar")
        || layer.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || layer.media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar")
        || layer.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar");
    if !fits || layer.media_type.contains("encrypted") {
        return Err(Error::MediaType(layer.media_type.chars().take(120).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str, &str)]) -> Vec<IndexEntry> {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(i, (os, arch, variant))| {
                serde_json::json!({"mediaType": IMAGE_TYPES[0], "digest": Digest::of(&[i as u8]), "size": i,
                    "platform": {"os": os, "architecture": arch, "variant": variant}})
            })
            .collect();
        let text = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let Ok(Manifest::Index(entries)) = Manifest::parse(text.as_bytes(), None) else { panic!() };
        entries
    }

    #[test]
    fn the_best_platform_wins() {
        let entries = index(&[
            ("unknown", "unknown", ""),
            ("linux", "arm", "v6"),
            ("linux", "arm", "v7"),
            ("linux", "amd64", ""),
        ]);
        let size = |p: &str| choose(&entries, &Platform::parse(p).unwrap()).map(|e| e.manifest.size).ok();
        assert_eq!(size("linux/amd64"), Some(3));
        assert_eq!(size("linux/arm/v7"), Some(2));
        assert_eq!(size("linux/arm/v6"), Some(1));
        assert_eq!(size("linux/arm/v5"), None);
        assert_eq!(size("windows/amd64"), None);
        let text = choose(&entries, &Platform::parse("linux/s390x").unwrap()).unwrap_err().to_string();
        assert_eq!(text, "no image for linux/s390x; there are linux/arm/v6, linux/arm/v7, linux/amd64");
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        for text in [
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            r#"{"mediaType":"text/html","manifests":[]}"#,
            "[]",
            "",
        ] {
            assert!(Manifest::parse(text.as_bytes(), None).is_err(), "{text}");
        }
    }
}
