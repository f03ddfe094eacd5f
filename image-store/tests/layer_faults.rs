//! A writer or a removal that is killed, or fails, at each of its steps leaves no layer that is not whole, and the sweep
//! removes the rest. Needs the feature `fault-points`: `cargo test --features fault-points --test layer_faults`.
#![cfg(feature = "fault-points")]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use coracle_image_store::layer::{BackEnd, DiffId, ErofsLayers, LayerStore, TreeLayers};
use sha2::{Digest, Sha256};

#[path = "layer_contract/archive.rs"]
#[allow(dead_code)]
mod archive;

const STEPS: [&str; 7] = [
    "layer.begin",
    "layer.index",
    "layer.sync",
    "layer.record",
    "layer.rename",
    "layer.renamed",
    "layer.trashed",
];

fn tar() -> Vec<u8> {
    let mut archive = archive::Archive::new();
    archive.add(&archive::Member::directory("d"));
    archive.add(&archive::Member::file("d/f", b"contents"));
    archive.into_bytes()
}

fn diff_id() -> DiffId {
    DiffId::from_bytes(Sha256::digest(tar()).into())
}

fn store(root: &Path, back_end: BackEnd) -> Box<dyn LayerStore> {
    match back_end {
        BackEnd::Erofs => Box::new(ErofsLayers::open(root).unwrap()),
        BackEnd::Tree => Box::new(TreeLayers::open(root).unwrap()),
    }
}

/// What the killed process does: this test program is started again for it.
#[test]
fn victim() {
    let Ok(root) = std::env::var("CORACLE_TEST_VICTIM") else { return };
    let (back_end, root) = root.split_once(':').unwrap();
    let store = store(Path::new(root), if back_end == "Erofs" { BackEnd::Erofs } else { BackEnd::Tree });
    let write = || {
        let mut writer = store.begin(diff_id())?;
        writer.write(&tar())?;
        writer.finish()
    };
    if write().and_then(|_| store.remove(&diff_id())).is_err() {
        std::fs::write(Path::new(root).join("refused"), b"").unwrap();
    }
}

#[test]
fn every_step_can_fail_or_be_the_last() {
    // Owners of unpacked files can be set by root only.
    let is_root = rustix::process::geteuid().is_root();
    let back_ends =
        [BackEnd::Erofs, BackEnd::Tree].into_iter().filter(|kind| is_root || *kind == BackEnd::Erofs);
    for back_end in back_ends {
        for step in STEPS {
            for action in ["kill", "fail"] {
                check(back_end, step, action);
            }
        }
    }
}

fn check(back_end: BackEnd, step: &str, action: &str) {
    let root = tempfile::tempdir().unwrap();
    let what = format!("{back_end:?}: {step}={action}");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim"])
        .env("CORACLE_TEST_VICTIM", format!("{back_end:?}:{}", root.path().display()))
        .env("CORACLE_FAULT", format!("{step}={action}"))
        .output()
        .unwrap()
        .status;
    if action == "kill" {
        assert_eq!(status.signal(), Some(9), "{what}");
    } else {
        assert!(root.path().join("refused").exists(), "{what}");
    }
    let store = store(root.path(), back_end);
    store.sweep().unwrap();
    let left = store.list().unwrap();
    let is_committed = step == "layer.renamed";
    assert_eq!(left.len(), usize::from(is_committed), "{what}");
    left.iter().for_each(|id| store.verify(id).unwrap());
    if !is_committed {
        assert_eq!(store.usage().unwrap().inodes, 3, "{what}");
    }
    let mut writer = store.begin(diff_id()).unwrap();
    writer.write(&tar()).unwrap();
    writer.finish().unwrap();
    store.verify(&diff_id()).unwrap();
}
