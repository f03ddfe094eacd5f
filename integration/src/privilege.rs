//! What a test needs of the machine, and skips that are counted.

use std::io::Write;
use std::path::PathBuf;

/// Records that `test` does not run here; `cargo xtask test` counts it and fails for one that is not listed.
pub fn record_skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    eprint!("{line}");
    let Some(path) = std::env::var_os("CORACLE_SKIPS") else { return };
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
        panic!("{}: {error}", PathBuf::from(path).display());
    }
}

/// Whether this process may make namespaces, mounts and cgroups.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program `name` on the path or in the system's directories.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The name of the running test: the harness names its threads so.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("main").to_owned()
}

/// Returns from the test, recorded as skipped, unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::privilege::is_root() {
            $crate::privilege::record_skip(&$crate::privilege::test_name(), "needs root");
            return;
        }
    };
}

/// Returns from the test, recorded as skipped, unless the program is installed.
#[macro_export]
macro_rules! require_program {
    ($name:expr) => {
        if $crate::privilege::program($name).is_none() {
            let reason = format!("{} is not installed", $name);
            $crate::privilege::record_skip(&$crate::privilege::test_name(), &reason);
            return;
        }
    };
}
