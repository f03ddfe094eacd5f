//! Builds the workspace once, with its test programs, and learns from cargo where they are.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

/// Tests are always built with the fault points: one feature set, one build.
pub const FEATURES: &[&str] = &[
    "--features",
    "coracle-runtime/fault-points,coracle-monitor/fault-points,coracle-image-store/fault-points,coracle-cri/fault-points",
];

/// One test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestProgram {
    /// `package/target`, as filters and reports name it.
    pub name: String,
    pub executable: PathBuf,
    /// The package's directory, in which cargo would run it.
    pub directory: PathBuf,
}

/// Builds every target of every member; the test programs, in a stable order.
pub fn all_targets(root: &Path) -> Result<Vec<TestProgram>, String> {
    let mut child = crate::cargo(root)
        .args(["build", "--workspace", "--all-targets", "--message-format=json-render-diagnostics"])
        .args(FEATURES)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo build: {error}"))?;
    let mut programs = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| format!("cargo build: {error}"))?;
            programs.extend(serde_json::from_str(&line).ok().as_ref().and_then(test_program));
        }
    }
    let status = child.wait().map_err(|error| format!("cargo build: {error}"))?;
    if !status.success() {
        return Err(format!("cargo build --workspace --all-targets: {status}"));
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// The directory cargo builds into.
pub fn target_dir(root: &Path) -> Result<PathBuf, String> {
    let output = crate::cargo(root)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .ok_or_else(|| "cargo metadata: no target_directory".into())
}

/// The test program that a message of cargo announces.
fn test_program(message: &Value) -> Option<TestProgram> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?;
    let package = directory.file_name()?.to_string_lossy();
    Some(TestProgram {
        name: format!("{package}/{}", message["target"]["name"].as_str()?),
        executable: message["executable"].as_str()?.into(),
        directory: directory.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_count() {
        let artifact = |test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": "/w/runtime/Cargo.toml",
                "target": {"name": "coracle_runtime"}, "profile": {"test": test}, "executable": "/t/x-1",
            })
        };
        assert_eq!(test_program(&artifact(false)), None);
        let found = test_program(&artifact(true)).unwrap();
        assert_eq!(
            (found.name.as_str(), found.directory.to_str()),
            ("runtime/coracle_runtime", Some("/w/runtime"))
        );
    }
}
