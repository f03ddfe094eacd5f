//! From a name to a manifest for the platform and its configuration, each checked.

use crate::manifest::{self, ImageManifest, Manifest, Platform};
use crate::progress::Progress;
use crate::registry::client::Document;
use crate::registry::retry::Retry;
use crate::registry::{self, Registry};
use crate::store::record::{self, ImageRecord, LayerRecord};
use crate::{Digest, Reference};

use super::Error;

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The digest that the name resolved to (the index's, where there is one).
    pub(super) digest: Digest,
    /// The manifest for the platform.
    manifest: Digest,
    pub(super) image: ImageManifest,
    /// Index, manifest and configuration, as they came.
    pub(super) documents: Vec<Vec<u8>>,
}

impl Resolved {
    /// The digests of the documents.
    pub(super) fn blobs(&self) -> Vec<Digest> {
        self.documents.iter().map(|document| Digest::of(document)).collect()
    }

    /// The image's record, after checking configuration and layers against each other.
    pub(super) fn record(&self) -> Result<ImageRecord, Error> {
        let config = manifest::parse_config(self.documents.last().map_or(&[], Vec::as_slice))?;
        image_record(&self.image, self.manifest, &config)
    }
}

/// Makes a record of a manifest and its configuration.
pub(crate) fn image_record(
    image: &ImageManifest,
    manifest: Digest,
    config: &oci_spec::image::ImageConfiguration,
) -> Result<ImageRecord, Error> {
    let diff_ids = manifest::diff_ids(config, image.layers.len())?;
    let layer = |(layer, diff_id): (&manifest::Descriptor, Digest)| {
        manifest::check_layer(layer)?;
        Ok(LayerRecord {
            blob: layer.digest,
            size: layer.size,
            media_type: layer.media_type.clone(),
            diff_id,
        })
    };
    Ok(ImageRecord {
        version: record::VERSION,
        id: image.config.digest,
        manifest,
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        layers: image.layers.iter().zip(diff_ids).map(layer).collect::<Result<_, manifest::Error>>()?,
        added: record::now(),
    })
}

/// Resolves a reference.
pub(super) async fn resolve(
    registry: &Registry,
    reference: &Reference,
    platform: &Platform,
    progress: &Progress,
) -> Result<Resolved, Error> {
    let first = fetch_manifest(registry, &reference.selector(), reference.digest(), progress).await?;
    crate::fault::point("pull.manifest")?;
    let digest = first.digest;
    let mut documents = Vec::new();
    let parsed = Manifest::parse(&first.content, first.content_type.as_deref())?;
    documents.push(first.content);
    let (manifest, image) = match parsed {
        Manifest::Image(image) => (digest, image),
        Manifest::Index(entries) => {
            let entry = manifest::choose(&entries, platform)?.manifest.clone();
            let second =
                fetch_manifest(registry, &entry.digest.to_string(), Some(entry.digest), progress).await?;
            let Manifest::Image(image) = Manifest::parse(&second.content, second.content_type.as_deref())?
            else {
                return Err(manifest::Error::Ambiguous("an index within an index").into());
            };
            documents.push(second.content);
            (entry.digest, image)
        }
    };
    documents.push(fetch_config(registry, &image, progress).await?);
    crate::fault::point("pull.config")?;
    Ok(Resolved { digest, manifest, image, documents })
}

async fn fetch_manifest(
    registry: &Registry,
    selector: &str,
    expected: Option<Digest>,
    progress: &Progress,
) -> Result<Document, Error> {
    let wanted = Wanted::Manifest { selector: selector.to_owned(), expected };
    at_some_endpoint(registry, &wanted, progress).await
}

async fn fetch_config(
    registry: &Registry,
    image: &ImageManifest,
    progress: &Progress,
) -> Result<Vec<u8>, Error> {
    let wanted = Wanted::Config { digest: image.config.digest, size: image.config.size };
    Ok(at_some_endpoint(registry, &wanted, progress).await?.content)
}

enum Wanted {
    Manifest { selector: String, expected: Option<Digest> },
    Config { digest: Digest, size: u64 },
}

impl Wanted {
    const fn name(&self) -> &'static str {
        match self {
            Self::Manifest { .. } => "manifest",
            Self::Config { .. } => "configuration",
        }
    }

    const fn is_by_tag(&self) -> bool {
        matches!(self, Self::Manifest { expected: None, .. })
    }

    async fn ask(&self, registry: &Registry, endpoint: usize) -> Result<Document, registry::Error> {
        match self {
            Self::Manifest { selector, expected } => registry.manifest(endpoint, selector, *expected).await,
            Self::Config { digest, size } => {
                let content = registry.small_blob(endpoint, digest, *size).await?;
                Ok(Document { content, digest: *digest, content_type: None })
            }
        }
    }
}

// Mirrors are tried once each, the origin as often as is configured. The origin's error is the one to tell.
async fn at_some_endpoint(
    registry: &Registry,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Document, Error> {
    let origin = registry.endpoint_count().saturating_sub(1);
    for mirror in (0..origin).filter(|mirror| !wanted.is_by_tag() || registry.resolves(*mirror)) {
        match wanted.ask(registry, mirror).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => tracing::info!(error = %crate::error::chain(&error), "mirror passed over"),
        }
    }
    let mut retry = Retry::new(registry.http().config().attempts);
    loop {
        let error = match wanted.ask(registry, origin).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => error,
        };
        let Some(delay) = retry.delay(&error) else { return Err(error.into()) };
        super::fetch::tell_retry(progress, wanted.name(), &error, delay);
        tokio::time::sleep(delay).await;
    }
}
