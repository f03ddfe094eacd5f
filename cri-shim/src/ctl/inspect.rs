//! `coraclectl inspect`: pods and containers where a daemon answers, images anyway.

use std::process::ExitCode;

use coracle_image_store::Store;
use coracle_image_store::store::Image;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Cli, output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Pod, container or image: its name, or the beginning of its id
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node().ok();
    let inspect = |name: &String| {
        let on_node = node.as_ref().map(|node| super::node::inspect::inspect(node, name));
        match on_node {
            Some(Err(failure)) if !failure.is_not_found() => Err(failure),
            Some(Ok(value)) => Ok(value),
            _ => image(cli, name),
        }
    };
    let values = args.names.iter().map(inspect).collect::<Result<Vec<_>, Failure>>()?;
    output::json(&values);
    Ok(ExitCode::SUCCESS)
}

fn image(cli: &Cli, name: &str) -> Result<Value, Failure> {
    let store = cli.store()?;
    let image = store.image(name)?;
    let mut value = summary(&store, &image);
    value["kind"] = json!("image");
    value["layers"] = image.record.layers.iter().map(|layer| describe(&store, layer)).collect();
    let config = store.blob(&image.record.id)?;
    value["config"] = serde_json::from_slice(&config).unwrap_or(Value::Null);
    Ok(value)
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
