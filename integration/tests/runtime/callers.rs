//! Programs that call a runtime: podman and containerd's ctr, with ours in the place of runc.

use std::path::Path;
use std::process::Command;

use coracle_integration::runtime::{call, quiet};
use coracle_integration::{Bundle, Outcome, Runtime, require_program, require_root, wait};

/// Podman with storage, run directory and control groups of its own, on a root file system without an image.
fn podman(directory: &Path, args: &[&str]) -> Outcome {
    let mut command: Command = quiet("podman");
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    command
        .args(["--root", &path("storage"), "--runroot", &path("run"), "--tmpdir", &path("tmp")])
        .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"])
        .arg("--runtime")
        .arg(Runtime::subject().program)
        .args(args)
        .current_dir(directory);
    call(command, directory, wait::PATIENCE)
}

fn with_rootfs(test: impl FnOnce(&Path, &str)) {
    let directory = tempfile::Builder::new().prefix("coracle-it-").tempdir().expect("temporary directory");
    let bundle = Bundle::create(&directory.path().join("bundle"), "podman");
    test(directory.path(), &bundle.rootfs().to_string_lossy());
}

/// Limits are stated: podman would raise them above what an unprivileged machine allows.
const QUIET: [&str; 7] = [
    "run",
    "--network=none",
    "--cgroup-parent=/coracle-test/podman",
    "--security-opt=seccomp=unconfined",
    "--log-driver=none",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1000:1000",
];

#[test]
fn podman_runs_a_container() {
    require_root!();
    require_program!("podman");
    with_rootfs(|directory, rootfs| {
        let mut args = QUIET.to_vec();
        args.extend(["--rm", "--rootfs", rootfs, "/bin/sh", "-c", "echo hello from podman; exit 7"]);
        let outcome = podman(directory, &args);
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("hello from podman\n", Some(7)), "{outcome:#?}");
    });
}

#[test]
fn podman_execs_into_a_container_and_removes_it() {
    require_root!();
    require_program!("podman");
    with_rootfs(|directory, rootfs| {
        let mut args = QUIET.to_vec();
        args.extend(["--detach", "--name", "one", "--rootfs", rootfs, "/bin/sleep", "600"]);
        podman(directory, &args).expect_success();
        let inside = podman(directory, &["exec", "one", "/bin/sh", "-c", "echo $PPID; cat /proc/1/comm"]);
        let removed = podman(directory, &["rm", "--force", "--time", "0", "one"]);
        assert_eq!(inside.expect_success(), "0\nsleep\n");
        removed.expect_success();
    });
}
