//! `coraclectl` against Debian's docker-registry: killed at each fault point, on full disks, with damaged layers, twice
//! at once. Needs root; `CORACLECTL` names a program built with the feature `fault-points` (else target/debug).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coracle_integration::images::{self, Registry};
use coracle_integration::{privilege, require_root};

struct Place {
    directory: tempfile::TempDir,
    _registry: Registry,
    image: String,
}

fn coraclectl() -> Option<PathBuf> {
    let path =
        std::env::var_os("CORACLECTL").map_or_else(|| "../target/debug/coraclectl".into(), PathBuf::from);
    path.is_file().then_some(path)
}

fn place() -> Option<Place> {
    let missing =
        ["docker-registry", "skopeo", "busybox"].into_iter().find(|name| privilege::program(name).is_none());
    if missing.is_some() || coraclectl().is_none() {
        privilege::record_skip(
            &privilege::test_name(),
            "needs docker-registry, skopeo, busybox and a built coraclectl",
        );
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path()).unwrap();
    let busybox = images::busybox_layer(directory.path()).unwrap();
    let perl = images::layer(directory.path(), "perl", Path::new("/usr/share/perl")).unwrap();
    let archive = images::archive(directory.path(), "app", &[&busybox, &perl]).unwrap();
    let image = registry.push(&archive, "app", &[]).unwrap();
    Some(Place { directory, _registry: registry, image })
}

fn ctl(root: &Path, args: &[&str], fault: Option<&str>) -> Output {
    let mut command = Command::new(coraclectl().unwrap());
    command.arg("--root").arg(root).args(args).env_remove("CORACLE_FAULT");
    if let Some(fault) = fault {
        command.env("CORACLE_FAULT", fault);
    }
    command.output().unwrap()
}

fn succeeds(root: &Path, args: &[&str]) -> String {
    let output = ctl(root, args, None);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const POINTS: [&str; 20] = [
    "layer.begin",
    "layer.index",
    "layer.sync",
    "layer.record",
    "layer.rename",
    "layer.renamed@2",
    "pull.manifest",
    "pull.config",
    "pull.layer.begin",
    "pull.layer.piece",
    "pull.layer.piece@20",
    "pull.layer.commit",
    "pull.layer.commit@2",
    "pull.ingest.finish",
    "pull.record",
    "store.write",
    "store.rename@2",
    "store.sync@3",
    "store.rename@5",
    "store.sync@6",
];

/// What a removal passes.
const REMOVAL_POINTS: [&str; 2] = ["gc.layer", "layer.trashed"];

/// The fault points that the source of the image store has.
fn points_of(directory: &Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points_of(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.split("fault::point(\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(names.map(str::to_owned));
    }
}

#[test]
fn every_fault_point_is_tried() {
    let mut found = std::collections::BTreeSet::new();
    points_of(Path::new("../image-store/src"), &mut found);
    let tried = POINTS.iter().chain(&REMOVAL_POINTS).map(|point| point.split('@').next().unwrap().to_owned());
    assert_eq!(found, tried.collect());
}

#[test]
fn a_removal_killed_at_each_step_is_ended_by_the_next_one() {
    require_root!();
    let Some(place) = place() else { return };
    for point in REMOVAL_POINTS {
        for action in ["kill", "fail"] {
            let root = place.directory.path().join(format!("{point}{action}"));
            succeeds(&root, &["pull", &place.image]);
            succeeds(&root, &["rmi", &place.image]);
            let broken = ctl(&root, &["gc"], Some(&format!("{point}={action}")));
            assert!(!broken.status.success(), "{point}={action} was not passed");
            assert!(succeeds(&root, &["fsck", "--json"]).contains(r#""findings": []"#), "{point}={action}");
            succeeds(&root, &["gc"]);
            for directory in ["layers/.trash", "layers/.staging", "blobs/sha256", "leases"] {
                let left = std::fs::read_dir(root.join(directory)).unwrap().count();
                assert_eq!(left, 0, "{point}={action}: {directory}");
            }
            succeeds(&root, &["pull", &place.image]);
            succeeds(&root, &["fsck"]);
        }
    }
}

#[test]
fn killed_at_each_step_the_store_is_whole_and_the_next_pull_works() {
    require_root!();
    let Some(place) = place() else { return };
    for (number, point) in POINTS.iter().enumerate() {
        for action in ["kill", "fail"] {
            let root = place.directory.path().join(format!("s{number}{action}"));
            let broken = ctl(&root, &["pull", &place.image], Some(&format!("{point}={action}")));
            assert!(!broken.status.success(), "{point}={action} was not passed");
            let report = succeeds(&root, &["fsck", "--json"]);
            assert!(report.contains(r#""findings": []"#), "{point}={action}: {report}");
            succeeds(&root, &["pull", &place.image]);
            succeeds(&root, &["fsck"]);
            succeeds(&root, &["gc", "--partial"]);
            assert!(succeeds(&root, &["images", "-q"]).starts_with("sha256:"));
            assert_eq!(std::fs::read_dir(root.join("leases")).unwrap().count(), 0, "{point}={action}");
            assert_eq!(
                std::fs::read_dir(root.join("layers/.staging")).unwrap().count(),
                0,
                "{point}={action}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_removal_still_works() {
    require_root!();
    let Some(place) = place() else { return };
    for (limit, fits) in [("size=6m", "size=200m"), ("nr_inodes=24", "nr_inodes=2000")] {
        let root = place.directory.path().join(limit);
        std::fs::create_dir(&root).unwrap();
        let mount = |options: &str| {
            assert!(
                Command::new("mount")
                    .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                    .arg(&root)
                    .status()
                    .unwrap()
                    .success()
            );
        };
        mount(limit);
        let full = ctl(&root, &["pull", &place.image], None);
        let text = String::from_utf8_lossy(&full.stderr).into_owned();
        let listed = ctl(&root, &["images", "-q"], None);
        let swept = ctl(&root, &["gc", "--partial"], None);
        mount(&format!("remount,{fits}"));
        let again = ctl(&root, &["pull", &place.image], None);
        let checked = ctl(&root, &["fsck"], None);
        assert!(Command::new("umount").arg(&root).status().unwrap().success());
        assert_eq!(full.status.code(), Some(7), "{limit}: {text}");
        assert!(text.contains("No space left") && text.contains("hint:"), "{text}");
        assert!(
            listed.stdout.is_empty() && swept.status.success(),
            "{limit}: {}",
            String::from_utf8_lossy(&swept.stderr)
        );
        assert!(again.status.success(), "{limit}: {}", String::from_utf8_lossy(&again.stderr));
        assert!(checked.status.success());
    }
}

#[test]
fn a_damaged_layer_is_found_dropped_and_fetched_alone() {
    require_root!();
    let Some(place) = place() else { return };
    let root = place.directory.path().join("damaged");
    succeeds(&root, &["pull", &place.image]);
    let layers = std::fs::read_dir(root.join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let tar = layers.map(|layer| layer.join("layer.tar")).find(|tar| tar.is_file());
    let Some(tar) = tar else { return };
    let mut content = std::fs::read(&tar).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::remove_file(&tar).unwrap();
    std::fs::write(&tar, content).unwrap();
    assert_eq!(ctl(&root, &["fsck"], None).status.code(), Some(6));
    let repaired = succeeds(&root, &["fsck", "--repair"]);
    assert!(repaired.contains(&format!("pull again: {}", place.image)), "{repaired}");
    succeeds(&root, &["pull", &place.image]);
    succeeds(&root, &["fsck"]);
}

#[test]
fn processes_that_pull_the_same_share_and_runc_runs_what_is_unpacked() {
    require_root!();
    let Some(place) = place() else { return };
    let root = place.directory.path().join("shared");
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| succeeds(&root, &["pull", &place.image]))).collect();
        pulls.into_iter().for_each(|pull| drop(pull.join().unwrap()));
    });
    succeeds(&root, &["fsck"]);
    assert_eq!(std::fs::read_dir(root.join("ingest")).unwrap().count(), 0);
    let bundle = place.directory.path().join("bundle");
    succeeds(&root, &["unpack", &place.image, bundle.to_str().unwrap(), "sh", "-c", "id -u; pwd"]);
    let ran = Command::new("runc")
        .arg("run")
        .arg("-b")
        .arg(&bundle)
        .arg(format!("unpack-{}", std::process::id()))
        .output();
    let ran = ran.unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\n/tmp\n", "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_container_whose_command_was_killed_is_ended_by_gc() {
    require_root!();
    let Some(place) = place() else { return };
    let root = place.directory.path().join("orphan");
    let marker = format!("orphan-{}", std::process::id());
    let mut command = Command::new(coraclectl().unwrap());
    command.arg("--root").arg(&root).args(["run", "--tty", "no", &place.image]);
    let script = format!("echo up; exec sleep 600 # {marker}");
    command.args(["/bin/sh", "-c", &script]).stdout(std::process::Stdio::piped());
    let mut command = command.stdin(std::process::Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(command.stdout.take().unwrap()), &mut first)
        .unwrap();
    assert_eq!(first, "up\n");
    command.kill().unwrap();
    command.wait().unwrap();
    let containers = || std::fs::read_dir(root.join("containers")).unwrap().flatten().collect::<Vec<_>>();
    let id = containers()[0].file_name().into_string().unwrap();
    let processes = || coracle_integration::leaks::processes(&id);
    assert!(!processes().is_empty(), "the runtime supervises the container");
    succeeds(&root, &["gc", "--dry-run"]);
    assert_eq!(containers().len(), 1, "a dry run touches nothing");
    succeeds(&root, &["gc"]);
    assert!(containers().is_empty());
    assert!(
        coracle_integration::wait::until(coracle_integration::wait::PATIENCE, || processes().is_empty()),
        "{:?}",
        processes()
    );
}
