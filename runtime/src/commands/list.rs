//! `list`: all containers below the root, as a table, JSON or bare ids.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::container::Container;
use super::flags::{Flag, FlagKind, Parsed};
use super::state::Document;
use super::{Arity, Context, Error, Verb};

pub const VERB: Verb = Verb {
    name: "list",
    usage: "lists containers started by the runtime with the given root",
    arguments: "",
    description: "The given root is specified via the global option \"--root\".",
    flags: &[
        Flag {
            names: &["format", "f"],
            kind: FlagKind::Text,
            help: "select one of: table or json",
            default: Some("\"table\""),
        },
        Flag::new(&["quiet", "q"], FlagKind::Switch, "display only container IDs"),
    ],
    arity: Arity::Exactly(0),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let documents = documents(context)?;
    let text = if words.is_on("quiet") {
        documents.iter().fold(String::new(), |all, document| all + &document.id + "\n")
    } else {
        match words.text("format").unwrap_or("table") {
            "table" => table(&documents),
            "json" => json(&documents)?,
            _ => return Err(Error::Usage("invalid format option".to_owned())),
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::io("write", "/dev/stdout"))?;
    Ok(0)
}

/// One that cannot be read is named on stderr and left out, so that it does not hide the others.
fn documents(context: &Context) -> Result<Vec<Document>, Error> {
    // Nothing was ever run below the default root; another one that is not there is a mistake.
    if context.root_given {
        std::fs::read_dir(&context.root).map_err(Error::io("open", &context.root))?;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut documents = Vec::new();
    // The cache of compiled filters lies beside the containers and is none.
    for id in context.store().list()?.into_iter().filter(|id| id != crate::launch::CACHE_DIR) {
        let document = Container::load(context, &id).and_then(|container| Document::of(&container));
        match document {
            Ok(mut document) => {
                document.owner = owner(&context.store().path(&id), &passwd);
                documents.push(document);
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "load container {id}: {error}");
            }
        }
    }
    Ok(documents)
}

fn json(documents: &[Document]) -> Result<String, Error> {
    // Go prints an absent slice as null.
    if documents.is_empty() {
        return Ok("null\n".to_owned());
    }
    serde_json::to_string(documents)
        .map(|text| text + "\n")
        .map_err(|source| Error::Json { path: "list".into(), source })
}

/// Go's tabwriter with cells of at least 12 columns and 3 blanks between.
fn table(documents: &[Document]) -> String {
    let mut rows: Vec<[String; 6]> =
        vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(documents.iter().map(|d| {
        let bundle = d.bundle.display().to_string();
        [d.id.clone(), d.pid.to_string(), d.status.clone(), bundle, d.created.clone(), d.owner.clone()]
    }));
    let widths: Vec<usize> = (0..5)
        .map(|column| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12))
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}");
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The name of the directory's owner; a static program has no NSS, so only `/etc/passwd` counts.
fn owner(directory: &Path, passwd: &str) -> String {
    let uid = directory.metadata().map_or(0, |metadata| metadata.uid());
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
