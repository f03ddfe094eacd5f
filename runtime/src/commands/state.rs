//! `state`, and the document that it shares with `list`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use super::container::Container;
use super::flags::Parsed;
use super::{Arity, Context, Error, Verb};
use crate::state::Status;

pub const VERB: Verb = Verb {
    name: "state",
    usage: "output the state of a container",
    arguments: "<container-id>\n\nWhere \"<container-id>\" is your name for the instance of the container.",
    description: "The state command outputs current state information for the\ninstance of a container.",
    flags: &[],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

/// runc's `containerState`, field by field in its order.
#[derive(Debug, serde::Serialize)]
pub struct Document {
    #[serde(rename = "ociVersion")]
    version: String,
    pub id: String,
    pub pid: i32,
    pub status: String,
    pub bundle: PathBuf,
    rootfs: PathBuf,
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// The owner of the directory; `state` leaves it empty as runc does.
    pub owner: String,
}

impl Document {
    /// The document of a container; a stopped one has no pid.
    pub fn of(container: &Container) -> Result<Self, Error> {
        let status = container.status()?;
        let record = &container.record;
        Ok(Self {
            version: record.spec.version().clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.init_process_pid },
            status: status.to_string(),
            bundle: record.bundle.clone(),
            rootfs: record.config.rootfs.clone(),
            created: record.created.clone(),
            annotations: record
                .spec
                .annotations()
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            owner: String::new(),
        })
    }
}

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    let document = Document::of(&container)?;
    let text = serde_json::to_string_pretty(&document)
        .map_err(|source| Error::Json { path: container.record.bundle.clone(), source })?;
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::io("write", "/dev/stdout"))?;
    Ok(0)
}
