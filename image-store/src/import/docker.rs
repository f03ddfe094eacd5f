//! `docker save`: `manifest.json` lists images with the names of their configuration and layers in the archive.
//!
//! Docker's archive has no manifest of the image: one is written here, which names the layers by their diff-ids.

use serde::Deserialize;

use super::archive::Archive;
use super::{Error, Found};
use crate::manifest::{self, Descriptor, ImageManifest};
use crate::store::record::{self, ImageRecord, LayerRecord};
use crate::{Digest, Reference};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(archive: &Archive) -> Result<Vec<Found>, Error> {
    let items: Vec<Item> = serde_json::from_slice(&archive.document("manifest.json")?)
        .map_err(|source| manifest::Error::Syntax { what: "manifest.json", source })?;
    items.into_iter().map(|item| image(archive, item)).collect()
}

fn image(archive: &Archive, item: Item) -> Result<Found, Error> {
    let config_bytes = archive.document(&item.config)?;
    let config = manifest::parse_config(&config_bytes)?;
    let members = item.layers.unwrap_or_default();
    let diff_ids = manifest::diff_ids(&config, members.len())?;
    let layer = |(diff_id, member): (&Digest, &String)| LayerRecord {
        blob: *diff_id,
        size: archive.length(member),
        media_type: LAYER.into(),
        diff_id: *diff_id,
    };
    let layers: Vec<LayerRecord> = diff_ids.iter().zip(&members).map(layer).collect();
    let id = Digest::of(&config_bytes);
    let manifest_bytes = written_manifest(&id, config_bytes.len() as u64, &layers);
    let digest = Digest::of(&manifest_bytes);
    let names =
        item.repo_tags.unwrap_or_default().into_iter().map(|tag| Ok(tag.parse::<Reference>()?.to_string()));
    Ok(Found {
        record: ImageRecord {
            version: record::VERSION,
            id,
            manifest: digest,
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            layers,
            added: record::now(),
        },
        digest,
        documents: vec![manifest_bytes, config_bytes],
        names: names.collect::<Result<_, Error>>()?,
        members,
    })
}

fn written_manifest(id: &Digest, size: u64, layers: &[LayerRecord]) -> Vec<u8> {
    let describe =
        |d: &Descriptor| serde_json::json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
    let image = ImageManifest {
        config: Descriptor { media_type: CONFIG.into(), digest: *id, size },
        layers: layers
            .iter()
            .map(|l| Descriptor { media_type: l.media_type.clone(), digest: l.blob, size: l.size })
            .collect(),
    };
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(&image.config),
        "layers": image.layers.iter().map(describe).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}
