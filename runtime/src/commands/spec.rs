//! `spec`: writes a starter configuration.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb};
use crate::spec;

pub const VERB: Verb = Verb {
    name: "spec",
    usage: "create a new specification file",
    arguments: "",
    description: "The spec command creates the new specification file named \"config.json\" for\nthe bundle. It is a starter file: edit it to achieve the desired results.",
    flags: &[
        Flag::new(&["bundle", "b"], FlagKind::Text, "path to the root of the bundle directory"),
        Flag::new(&["rootless"], FlagKind::Switch, "generate a configuration for a rootless container"),
    ],
    arity: Arity::Exactly(0),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

fn run(_: &Context, words: &Parsed) -> Result<u8, Error> {
    let unified = spec::is_unified();
    let text = if words.is_on("rootless") {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        spec::rootless_template(unified, uid.as_raw(), gid.as_raw())
    } else {
        spec::template(unified)
    };
    let path = Path::new(words.text("bundle").unwrap_or(".")).join("config.json");
    if path.symlink_metadata().is_ok() {
        return Err(Error::Usage("File config.json exists. Remove it first".to_owned()));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
    Ok(0)
}
