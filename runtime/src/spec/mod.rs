//! The configuration of a bundle: loading it within bounds, checking all of it at once, and the template of `spec`.
//!
//! runc is the measure of what is accepted. What Go's decoder takes (null for a zero value, a missing property) is put
//! right before the strict types read it (`normalise`); what has no effect is a warning, which `--strict` turns into a
//! refusal. Unknown properties are ignored, as the specification demands.

mod normalise;
mod template;
mod validate;

pub use normalise::capability;
pub use template::{rootless as rootless_template, template};
pub use validate::{Facts, Report, is_unified, validate, validate_process};

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ErrorKind, Kind};
use crate::plan::Problem;
use crate::small_file;

/// The largest config.json that is read. Docker's with the default seccomp profile have 20 KiB.
pub const CONFIG_LIMIT: u64 = 16 << 20;

const CONFIG: &str = "config.json";

/// A configuration that could be read.
#[derive(Debug)]
pub struct Loaded {
    pub spec: Spec,
    /// What was put right or left out while reading.
    pub warnings: Vec<Problem>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("JSON specification file {CONFIG} not found")]
    NotFound,
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("config cannot be null")]
    Null,
    /// Everything that is wrong with it.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Io { source, .. } => source.raw_os_error().map_or(ErrorKind::Kernel, |e| {
                ErrorKind::from_errno(rustix::io::Errno::from_raw_os_error(e))
            }),
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::Json { .. } | Self::Null | Self::Invalid(_) => ErrorKind::Invalid,
        }
    }
}

/// Reads `config.json` of a bundle.
pub fn load(bundle: &Path) -> Result<Loaded, Error> {
    let path = bundle.join(CONFIG);
    let bytes = read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound,
        _ => Error::Io { path: path.clone(), source },
    })?;
    if bytes.len() as u64 > CONFIG_LIMIT {
        return Err(Error::TooLarge { path, limit: CONFIG_LIMIT });
    }
    parse(&bytes, &path)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    small_file::drain(file, usize::try_from(CONFIG_LIMIT).unwrap_or(usize::MAX))
}

/// Parses the bytes of a configuration; `path` is for errors.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Loaded, Error> {
    match parse_directly(bytes) {
        Some(spec) => Ok(Loaded { spec, warnings: Vec::new() }),
        None => parse_by_value(bytes, path),
    }
}

/// Most configurations need nothing put right: then they are read in one pass, without a tree of values between. `None`
/// where a type does not fit or `normalise` would have something to say.
fn parse_directly(bytes: &[u8]) -> Option<Spec> {
    // A list of all properties in order would read too.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let spec = Spec::deserialize(&mut serde_json::Deserializer::from_slice(bytes)).ok()?;
    normalise::is_plain(&spec).then_some(spec)
}

fn parse_by_value(bytes: &[u8], path: &Path) -> Result<Loaded, Error> {
    let mut value = first_value(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    if value.is_null() {
        return Err(Error::Null);
    }
    if !value.is_object() {
        let problem = Problem::new(CONFIG, "not a JSON object");
        return Err(Error::Invalid(vec![problem]));
    }
    let warnings = normalise::spec(&mut value);
    // The value is used up; where it is wrong, it is made again to find all that is.
    serde_json::from_value(value)
        .map(|spec| Loaded { spec, warnings })
        .map_err(|source| Error::Invalid(problems(bytes, &source)))
}

fn problems(bytes: &[u8], whole: &serde_json::Error) -> Vec<Problem> {
    let mut value = first_value(bytes).unwrap_or(Value::Null);
    normalise::spec(&mut value);
    normalise::locate(&value, whole)
}

/// Parses a process document, as `exec --process` gives it.
pub fn parse_process(bytes: &[u8]) -> Result<Process, serde_json::Error> {
    let mut value = first_value(bytes)?;
    normalise::process(&mut value);
    serde_json::from_value(value)
}

/// Parses `linux.resources` on its own, as `update --resources` gives it.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources, serde_json::Error> {
    let mut value = serde_json::json!({"linux": {"resources": first_value(bytes)?}});
    normalise::spec(&mut value);
    serde_json::from_value(value["linux"]["resources"].take())
}

/// Go's decoder reads one value and does not look at what follows.
fn first_value(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    use serde::de::Error as _;
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    values.next().unwrap_or_else(|| Err(serde_json::Error::custom("EOF")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Loaded, String> {
        parse(text.as_bytes(), Path::new("config.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_go_reads_is_read() {
        let loaded = parsed(
            r#"{"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/","env":null,"rlimits":[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}],"capabilities":
            {"bounding":["CAP_KILL","CAP_NEW_THING"]}},"root":null,"unknown":{"x":1},
            "linux":{"resources":{"pids":{}},"devices":null},"vm":{}} trailing"#,
        )
        .unwrap();
        let fields: Vec<&str> = loaded.warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["process.rlimits[0]", "process.capabilities.bounding", "vm"]);
        let process = loaded.spec.process().clone().unwrap();
        assert_eq!(process.user().uid(), 0);
        assert_eq!(process.capabilities().clone().unwrap().bounding().clone().unwrap().len(), 1);
    }

    #[test]
    fn both_ways_of_reading_agree() {
        let base = r#""ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/","user":{"uid":1,"gid":2}"#;
        for (rest, direct) in [
            (r#"}"#, true),
            (r#","env":null}"#, true),
            (r#"},"unknown":{"x":null}"#, true),
            (r#"},"linux":{"resources":{"pids":{"limit":7}}} } trailing {"#, true),
            (r#"},"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/p"}]}"#, true),
            (r#","rlimits":[{"type":"RLIMIT_CPU","hard":1,"soft":1}]}"#, true),
            (
                r#","rlimits":[{"type":"RLIMIT_CPU","hard":1,"soft":1},{"type":"RLIMIT_CPU","hard":2,"soft":2}]}"#,
                false,
            ),
            (r#","capabilities":{"bounding":["CAP_KILL","CAP_NEW_THING"]}}"#, false),
            (r#","ioPriority":{}}"#, false),
            (r#"},"linux":{"resources":{"pids":{}}}"#, false),
            (r#"},"linux":{"namespaces":[{"type":"pid","path":""}]}"#, false),
            (r#"},"linux":{"devices":[{"path":"","type":"c","major":1,"minor":3}]}"#, false),
            (r#"},"windows":{"layerFolders":["a"]}"#, false),
            (r#"},"vm":{"kernel":{"path":"/k"}}"#, false),
            (r#"},"vm":{}"#, false),
            (r#"},"hostname":"a","hostname":"b""#, false),
        ] {
            let text = format!("{{{base}{rest}}}");
            let slow = parse_by_value(text.as_bytes(), Path::new("c")).map(|l| (l.spec, l.warnings)).unwrap();
            let fast = parse_directly(text.as_bytes());
            assert_eq!(fast.is_some(), direct, "{text}");
            if let Some(spec) = fast {
                assert_eq!((spec, Vec::new()), slow, "{text}");
            }
        }
        for text in [template(true), rootless_template(false, 1000, 1000)] {
            assert!(parse_directly(text.as_bytes()).is_some());
        }
        for text in ["null", "[]", "{", "", "7"] {
            assert!(parse_directly(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn all_wrong_types_are_named_by_their_path() {
        let error = parsed(
            r#"{"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/","rlimits":[{"type":"RLIMIT_CPU"},{"type":"X"}]},
            "mounts":[{"destination":"/a"},{"destination":5}],"linux":{"namespaces":[{"type":"bogus"}]},"hostname":7}"#,
        )
        .unwrap_err();
        for field in ["process.rlimits[1]: ", "mounts[1]: ", "linux.namespaces[0]: ", "hostname: "] {
            assert!(error.contains(field), "{field} in {error}");
        }
    }

    #[test]
    fn bounds_and_absence() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(Error::NotFound)));
        std::fs::write(dir.path().join(CONFIG), "null").unwrap();
        assert!(matches!(load(dir.path()), Err(Error::Null)));
        let file = std::fs::File::create(dir.path().join(CONFIG)).unwrap();
        file.set_len(CONFIG_LIMIT + 1).unwrap();
        assert!(matches!(load(dir.path()), Err(Error::TooLarge { .. })));
        assert!(parsed("{").unwrap_err().starts_with("config.json: "));
    }

    #[test]
    fn the_templates_are_valid() {
        for text in [template(true), rootless_template(false, 1000, 1000)] {
            let loaded = parsed(&text).unwrap();
            assert!(loaded.warnings.is_empty());
            let report = validate(&loaded.spec, &Facts::example());
            assert_eq!(report, Report::default());
        }
    }
}
