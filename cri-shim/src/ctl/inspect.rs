//! `coraclectl inspect`.

use std::process::ExitCode;

use coracle_image_store::Store;
use coracle_image_store::store::Image;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Cli, output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name, id, or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let inspect = |name: &String| {
        let image = store.image(name)?;
        let mut value = summary(&store, &image);
        value["layers"] = image.record.layers.iter().map(|layer| describe(&store, layer)).collect();
        let config = store.blob(&image.record.id)?;
        value["config"] = serde_json::from_slice(&config).unwrap_or(Value::Null);
        Ok(value)
    };
    let values = args.images.iter().map(inspect).collect::<Result<Vec<_>, Failure>>()?;
    output::json(&values);
    Ok(ExitCode::SUCCESS)
}

/// What lists and inspection both tell.
pub(super) fn summary(store: &Store, image: &Image) -> Value {
    json!({
        "id": image.record.id,
        "repoTags": image.repo_tags(),
        "repoDigests": image.repo_digests(),
        "manifest": image.record.manifest,
        "platform": format!("{}/{}", image.record.os, image.record.architecture),
        "diskBytes": store.disk_bytes(&image.record),
        "added": image.record.added,
    })
}

fn describe(store: &Store, layer: &coracle_image_store::store::LayerRecord) -> Value {
    let mut value = json!({
        "diffId": layer.diff_id,
        "blob": layer.blob,
        "blobBytes": layer.size,
        "mediaType": layer.media_type,
    });
    match store.layers().open(&layer.layer()) {
        Ok(there) => {
            value["backEnd"] = json!(there.back_end);
            value["path"] = json!(there.path);
            value["tarBytes"] = json!(there.tar_size);
            value["diskBytes"] = json!(there.disk_bytes);
        }
        Err(error) => value["problem"] = json!(coracle_image_store::error::chain(&error)),
    }
    value
}
