//! What the global flags say, made once in `main` and handed to every verb.

use std::path::{Path, PathBuf};

use super::flags::{self, Flag, FlagKind, Parsed};
use super::{Environment, Error};
use crate::cgroup::Driver;
use crate::log::{Format, Log};
use crate::state::Store;

/// The flags before the verb.
pub const GLOBAL_FLAGS: &[Flag] = &[
    Flag::new(&["debug"], FlagKind::Switch, "enable debug logging"),
    Flag::new(&["log"], FlagKind::Text, "set the log file to write logs to (default is '/dev/stderr')"),
    Flag {
        names: &["log-format"],
        kind: FlagKind::Text,
        help: "set the log format ('text' (default), or 'json')",
        default: Some("\"text\""),
    },
    Flag {
        names: &["root"],
        kind: FlagKind::Text,
        help: "root directory for storage of container state (this should be located in tmpfs)",
        default: Some("\"/run/coracle\""),
    },
    Flag {
        names: &["criu"],
        kind: FlagKind::Text,
        help: "path to the criu binary (accepted and ignored)",
        default: None,
    },
    Flag::new(
        &["systemd-cgroup"],
        FlagKind::Switch,
        "enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\" for e.g. \"system.slice:coracle:434234\"",
    ),
    Flag {
        names: &["rootless"],
        kind: FlagKind::Text,
        help: "ignore cgroup permission errors ('true', 'false', or 'auto')",
        default: Some("\"auto\""),
    },
    Flag::new(&["strict"], FlagKind::Switch, "refuse what is otherwise accepted with a warning"),
    Flag::new(&["version", "v"], FlagKind::Switch, "print the version"),
];

const DEFAULT_ROOT: &str = "/run/coracle";

/// The global settings of one invocation.
#[derive(Debug)]
pub struct Context {
    /// argv[0] as given, for usage errors.
    pub program: String,
    /// Its last component: how the program calls itself in errors.
    pub name: String,
    pub log: Log,
    /// The root directory, absolute.
    pub root: PathBuf,
    /// It was named by the caller.
    pub root_given: bool,
    pub systemd_cgroup: bool,
    /// Errors of permission on cgroups are forgiven.
    pub rootless: bool,
    /// Refuse what would only be warned of.
    pub strict: bool,
    pub environment: Environment,
}

impl Context {
    /// Reads the global flags.
    pub fn new(program: &str, globals: &Parsed, environment: Environment) -> Result<Self, Error> {
        let debug = globals.is_on("debug");
        let format = match globals.text("log-format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(Error::Usage(format!("invalid log-format: {other}"))),
        };
        let log = match globals.text("log").map(Path::new) {
            None => Log::stderr(format, debug),
            Some(path) => Log::file(path, format, debug).map_err(Error::io("open", path))?,
        };
        let root = match globals.text("root") {
            Some(root) => absolute(Path::new(root))?,
            None => default_root(&environment)?,
        };
        let name = Path::new(program).file_name().map_or(program.into(), |n| n.to_string_lossy());
        Ok(Self {
            program: program.to_owned(),
            name: name.into_owned(),
            log,
            root,
            root_given: globals.is_set("root"),
            systemd_cgroup: globals.is_on("systemd-cgroup"),
            rootless: rootless(globals.text("rootless"))?,
            strict: globals.is_on("strict") || environment.text("CORACLE_STRICT").is_some_and(|v| v != "0"),
            environment,
        })
    }

    /// The containers below the root.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::at(&self.root)
    }

    /// Who manages the groups.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        if self.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs }
    }
}

/// Makes a path absolute and lexically clean, as Go's `filepath.Abs`.
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map(|path| clean_path(&path)).map_err(Error::io("resolve", path))
}

/// Resolves `.` and `..` of an absolute path without looking at files, as Go's `filepath.Clean`.
#[must_use]
pub fn clean_path(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// `/run/coracle`, or below `$XDG_RUNTIME_DIR` for those who are not the real root.
fn default_root(environment: &Environment) -> Result<PathBuf, Error> {
    let Some(runtime_dir) = environment.text("XDG_RUNTIME_DIR").filter(|_| !is_real_root(environment)) else {
        return Ok(DEFAULT_ROOT.into());
    };
    let root = Path::new(runtime_dir).join("coracle");
    std::fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
    // The XDG specification lets cleaners remove what has no sticky bit.
    rustix::fs::chmod(&root, rustix::fs::Mode::from_raw_mode(0o1700))
        .map_err(|errno| Error::io("chmod", &root)(errno.into()))?;
    Ok(root)
}

/// runc's rule: root in the initial user namespace, or root in a child one that does not call itself another user.
fn is_real_root(environment: &Environment) -> bool {
    rustix::process::geteuid().is_root()
        && (!in_user_namespace() || matches!(environment.text("USER"), None | Some("root")))
}

fn rootless(text: Option<&str>) -> Result<bool, Error> {
    match text {
        None => Ok(detected_rootless()),
        Some(text) if text.eq_ignore_ascii_case("auto") => Ok(detected_rootless()),
        Some(text) => flags::parse_bool(text).ok_or_else(|| {
            let quoted = crate::log::go_quote(text);
            Error::Usage(format!("strconv.ParseBool: parsing {quoted}: invalid syntax"))
        }),
    }
}

fn detected_rootless() -> bool {
    !rustix::process::geteuid().is_root() || in_user_namespace()
}

/// The initial user namespace maps every id to itself.
fn in_user_namespace() -> bool {
    let map = crate::small_file::read_text("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_lexically() {
        for (path, want) in [("/a/../b/./c/", "/b/c"), ("/..", "/"), ("/a//b", "/a/b")] {
            assert_eq!(absolute(Path::new(path)).unwrap(), Path::new(want));
        }
    }

    #[test]
    fn rootless_values() {
        assert!(rootless(Some("true")).unwrap());
        assert!(!rootless(Some("false")).unwrap());
        assert!(rootless(Some("maybe")).is_err());
        assert!(rootless(Some("Auto")).is_ok());
    }
}
