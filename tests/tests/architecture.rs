//! The architecture as assertions: who may import whom, where tokio and `unsafe` may be, how long things may get.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use coracle_tests::{files, workspace};
use serde_json::Value;

/// Which of our crates each crate may link in the product. Tests may use all of them.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("coracle-runtime", &[]),
    ("coracle-monitor", &["coracle-runtime"]),
    ("coracle-image-store", &[]),
    ("coracle-cri", &["coracle-runtime", "coracle-monitor", "coracle-image-store"]),
    ("coracle-tests", &[]),
    ("coracle-integration", &["coracle-runtime"]),
    ("coracle-bench", &["coracle-runtime", "coracle-integration"]),
    ("coracle-guest", &[]),
    ("xtask", &["coracle-guest", "coracle-integration"]),
];

/// Source files outside `runtime/src/sys/` that may hold `unsafe`, with the decision record that says why.
const UNSAFE_BY_DECISION: &[(&str, &str)] = &[];

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).env_remove("RUSTC_WORKSPACE_WRAPPER");
    command
}

fn metadata() -> Value {
    let output =
        cargo().args(["metadata", "--no-deps", "--format-version=1"]).output().expect("cargo metadata");
    serde_json::from_slice(&output.stdout).expect("metadata")
}

#[test]
fn crates_import_only_what_the_design_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_IMPORT.iter().map(|(name, imports)| (*name, imports.iter().copied().collect())).collect();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table: decide what it may import"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let imported = dependency["name"].as_str().expect("name");
            if dependency["kind"].is_null() && imported.starts_with("coracle-") {
                assert!(may.contains(imported), "{name} may not import {imported}");
            }
        }
    }
}

/// Names of all crates that `package` links, builds included.
fn tree_of(package: &str) -> BTreeSet<String> {
    let output = cargo()
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_single_threaded_programs_are_free_of_async() {
    for package in ["coracle-runtime", "coracle-monitor"] {
        let tree = tree_of(package);
        assert!(tree.contains("rustix"), "the tree of {package} was not read");
        for asynchronous in ["tokio", "async-std", "mio", "smol", "futures-executor", "hyper"] {
            assert!(!tree.contains(asynchronous), "{package} links {asynchronous}");
        }
    }
}

/// `cargo xtask` installs the packages that the others need to be built, so it must be built without them.
#[test]
fn xtask_needs_no_package_that_it_installs() {
    let tree = tree_of("xtask");
    assert!(tree.contains("rustix"), "the tree of xtask was not read");
    for needy in ["k8s-cri", "tonic", "ring", "zstd", "coracle-runtime"] {
        assert!(!tree.contains(needy), "xtask links {needy}");
    }
}

/// Whether a line of code holds the keyword, comments and texts left out.
fn holds_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside_texts: String = code.split('"').step_by(2).collect();
    outside_texts.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn unsafe_is_only_at_the_kernel_boundary() {
    let root = workspace();
    for path in files(&root, "rs") {
        let relative = path.strip_prefix(&root).expect("below the root");
        let decided = UNSAFE_BY_DECISION.iter().any(|(file, _)| relative == Path::new(file));
        if relative.starts_with("runtime/src/sys") || decided {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("source");
        for (number, line) in text.lines().enumerate() {
            assert!(!holds_unsafe(line), "{}:{}: {line}", relative.display(), number + 1);
        }
    }
}

#[test]
fn decisions_about_unsafe_exist() {
    for (file, record) in UNSAFE_BY_DECISION {
        assert!(workspace().join(file).is_file(), "{file}");
        assert!(workspace().join(record).is_file(), "{record}");
    }
}

#[test]
fn the_keyword_is_told_from_words() {
    assert!(holds_unsafe("    let x = unsafe { f() };"));
    for harmless in ["// unsafe", "#![forbid(unsafe_code)]", "\"unsafe\"", "let unsafely = 1;"] {
        assert!(!holds_unsafe(harmless), "{harmless}");
    }
}

/// Names that say nothing about what a file owns.
const NAMELESS: &[&str] = &["util", "utils", "common", "helpers", "helper", "misc", "manager"];

#[test]
fn files_are_named_after_what_they_own() {
    for path in files(&workspace(), "rs") {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(!NAMELESS.contains(&stem.as_str()), "{}", path.display());
    }
}

#[test]
fn every_source_says_what_it_is() {
    let root = workspace();
    let silent: Vec<_> = files(&root, "rs")
        .into_iter()
        // A module's own tests are told by their name.
        .filter(|path| !path.to_string_lossy().ends_with("tests.rs"))
        .filter(|path| {
            let text = std::fs::read_to_string(path).expect("source");
            !text.trim_start().starts_with("//!") && text.lines().count() > 30
        })
        .collect();
    assert!(silent.is_empty(), "no module documentation: {silent:#?}");
}

#[test]
fn the_two_programs_that_run_in_containers_are_linked_statically() {
    let wrapper = std::fs::read_to_string(workspace().join(".cargo/rustc-static")).expect("wrapper");
    for program in ["coracle ", "coracle_monitor "] {
        assert!(wrapper.contains(&format!("--crate-name {program}")), "{program}");
    }
}

#[test]
fn every_member_inherits_the_lints() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("path");
        let text = std::fs::read_to_string(manifest).expect("manifest");
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest}");
    }
}
