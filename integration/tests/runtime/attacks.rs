//! Attacks of images and containers on the runtime and the host, each known from a runtime's past.
//!
//! CVE-2019-5736 (overwriting the runtime's program through /proc), CVE-2024-21626 (a leaked directory of the host),
//! CVE-2025-31133, -52565 and -52881 (masked paths, /dev/console and procfs writes redirected by links and races), and
//! links in the root file system that point a mount outside. What a container sees of the runtime's process must never
//! be a file or a directory of the host.

use std::os::unix::fs::symlink;
use std::path::Path;

use coracle_integration::console::call_on_terminal;
use coracle_integration::{Bundle, Container, Runtime, require_root, wait};
use serde_json::json;

/// A digest good enough to notice a change: length and bytes of the program.
fn program_bytes(runtime: &Runtime) -> Vec<u8> {
    std::fs::read(&runtime.program).expect("the runtime's program")
}

#[test]
fn the_program_is_not_overwritten_through_proc_self_exe() {
    require_root!();
    let runtime = Runtime::subject();
    let before = program_bytes(&runtime);
    // The entry point is a link to /proc/self/exe: what execs is the runtime's own copy, never the host's file.
    let container = Container::edited(&runtime, |bundle| {
        bundle.args(&["/proc/self/exe", "--version"]).set("/root/readonly", json!(false));
    });
    container.run();
    container.finish();
    assert!(before == program_bytes(&runtime), "the runtime's program has changed");
}

#[test]
fn exec_of_a_link_to_proc_self_exe_gives_no_handle_on_the_program() {
    require_root!();
    let runtime = Runtime::subject();
    let before = program_bytes(&runtime);
    // The classic: a watcher opens every newcomer's exe and tries to write to it once it is idle.
    let watcher = "cd /proc; while :; do for p in [0-9]*; do \
        [ $p -gt 1 ] && readlink $p/exe >/dev/null 2>&1 && (echo overwritten > $p/exe) 2>/dev/null && echo $p >> /tmp/won; \
        done; done";
    let container = Container::edited(&runtime, |bundle| {
        bundle.script(watcher).set("/root/readonly", json!(false)).capabilities(&[
            "CAP_SYS_PTRACE",
            "CAP_DAC_OVERRIDE",
            "CAP_SYS_ADMIN",
        ]);
        let evil = bundle.rootfs().join("bin/evil");
        symlink("/proc/self/exe", evil).expect("link");
    });
    container.run_with(&["--detach"]).expect_success();
    for _round in 0..10 {
        container.exec(&[], &["/bin/evil", "--help"]);
        container.exec(&[], &["/bin/true"]);
    }
    assert!(before == program_bytes(&runtime), "the runtime's program has changed");
    container.finish();
}

#[test]
fn a_library_of_the_image_is_not_loaded_by_the_runtime() {
    require_root!();
    // A dynamic runtime would run code of the image as soon as it executes inside: ours must be static.
    if !Runtime::subject().is_coracle() {
        return;
    }
    let bytes = program_bytes(&Runtime::subject());
    let interpreter = bytes.windows(10).any(|window| window == b"/ld-linux-");
    assert!(!interpreter, "the program asks for a dynamic loader");
}

/// Entries of the view into the runtime's process at the moment it enters the container.
const SPY: &str = "cd /proc; while :; do for p in [0-9]*; do [ $p -gt 1 ] && [ -d $p/fd ] && \
    for f in $p/cwd $p/root $p/fd/*; do t=$(readlink $f 2>/dev/null) && echo \"$p $f $t\"; done; done; done >> /tmp/seen 2>/dev/null";

#[test]
fn no_descriptor_of_the_host_is_seen_inside() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script(SPY).set("/root/readonly", json!(false)).capabilities(&["CAP_SYS_PTRACE"]);
        std::fs::write(bundle.rootfs().join("tmp/seen"), "").expect("file");
    });
    container.run_with(&["--detach"]).expect_success();
    for _round in 0..20 {
        container.exec(&[], &["/bin/true"]);
    }
    let seen = std::fs::read_to_string(container.bundle.rootfs().join("tmp/seen")).expect("what was seen");
    let state = container.state_root().to_string_lossy().into_owned();
    let suspicious: Vec<&str> = seen
        .lines()
        .filter(|line| {
            line.contains(&state) || line.contains("/sys/fs/cgroup") && line.contains("coracle-test")
        })
        .collect();
    assert!(suspicious.is_empty(), "seen inside: {suspicious:?}");
    container.finish();
}

/// CVE-2024-21626: the working directory is a descriptor of the host that the runtime left open.
#[test]
fn a_working_directory_below_proc_self_fd_is_refused() {
    require_root!();
    for number in 3..12 {
        let path = format!("/proc/self/fd/{number}");
        let container = Container::edited(&Runtime::subject(), |bundle| {
            bundle.args(&["/bin/ls", "../../../../.."]).set("/process/cwd", json!(path));
        });
        let outcome = container.run();
        assert!(
            !outcome.success() || !outcome.stdout.contains("coracle-it-"),
            "{path} led outside: {outcome:#?}"
        );
        assert!(!outcome.success(), "{path} was accepted as a working directory: {outcome:#?}");
        container.finish();
    }
}

#[test]
fn exec_with_a_working_directory_below_proc_self_fd_is_refused() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    for number in 3..12 {
        let outcome =
            container.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["/bin/ls", "../../../../.."]);
        assert!(!outcome.success(), "descriptor {number} was a directory: {outcome:#?}");
    }
    // A link inside the image to the same place.
    let link = container.bundle.rootfs().join("mnt/link");
    symlink("/proc/self/fd/7/", &link).expect("link");
    container.exec(&["--cwd", "/mnt/link"], &["/bin/pwd"]).expect_failure();
    container.finish();
}

/// The secret that no bundle below may reach.
fn secret_outside(bundle: &Bundle) -> String {
    let path = bundle.path.join("secret");
    std::fs::create_dir(&path).expect("directory outside");
    std::fs::write(path.join("file"), "outside").expect("file outside");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_mount_over_a_link_stays_inside() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let secret = secret_outside(bundle);
        symlink(&secret, bundle.rootfs().join("out")).expect("link");
        symlink("../../../../../../../..", bundle.rootfs().join("up")).expect("link");
        bundle
            .set("/root/readonly", json!(false))
            .mount("/out", "tmpfs", "tmpfs", &[])
            .mount("/up/tmp/coracle-escape", "tmpfs", "tmpfs", &[])
            .script("cut -d' ' -f5 /proc/self/mountinfo; touch /out/x");
    });
    let outcome = container.run();
    assert!(!outcome.timed_out);
    let outside = container.bundle.path.join("secret");
    assert!(!outside.join("x").exists(), "written outside");
    assert!(!Path::new("/tmp/coracle-escape").exists(), "a mount point was made on the host");
    container.finish();
}

#[test]
fn proc_as_a_link_is_refused() {
    require_root!();
    for target in ["/tmp", "mnt/proc", "/sys"] {
        let container = Container::edited(&Runtime::subject(), |bundle| {
            std::fs::remove_dir(bundle.rootfs().join("proc")).expect("proc");
            std::fs::create_dir(bundle.rootfs().join("mnt/proc")).expect("directory");
            symlink(target, bundle.rootfs().join("proc")).expect("link");
            bundle.script("cat /proc/self/attr/current; echo ran");
        });
        let outcome = container.run();
        assert!(!outcome.success(), "/proc as a link to {target} was accepted: {outcome:#?}");
        container.finish();
    }
}

#[test]
fn a_bind_over_proc_is_refused() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let secret = secret_outside(bundle);
        bundle.mount("/proc", "bind", &secret, &["bind"]).script("ls /proc");
    });
    container.run().expect_failure();
    container.finish();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let secret = secret_outside(bundle);
        bundle.mount("/proc/self/attr", "bind", &secret, &["bind"]).script("ls /proc/self/attr");
    });
    container.run().expect_failure();
    container.finish();
}

/// CVE-2025-31133: /dev/null of the image is a link to a procfs file that masking would then bind writable. The target
/// belongs to the container's own UTS namespace: a runtime that falls for it (runc 1.1.5 does) harms nobody here.
#[test]
fn masking_does_not_follow_a_link_at_dev_null() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        // Without a tmpfs on /dev the image's own /dev is used.
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
        symlink("/proc/sys/kernel/domainname", bundle.rootfs().join("dev/null")).expect("link");
        bundle
            .set("/root/readonly", json!(false))
            .set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys"]))
            .script("grep -c domainname /proc/self/mountinfo; echo pwned > /proc/keys; cat /proc/sys/kernel/domainname");
    });
    let outcome = container.run();
    assert!(!outcome.timed_out);
    let fell_for_it =
        outcome.stdout.contains("pwned") || outcome.success() && !outcome.stdout.starts_with("0\n");
    assert!(!fell_for_it, "the masked path is a writable sysctl: {outcome:#?}");
    container.finish();
}

/// CVE-2025-52565: the image's /dev/console or the pts it is bound from is a link to a procfs file.
#[test]
fn the_console_does_not_follow_links() {
    require_root!();
    for place in ["dev/console", "dev/ptmx", "dev/pts"] {
        let container = Container::edited(&Runtime::subject(), |bundle| {
            let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/dev");
            let path = bundle.rootfs().join(place);
            symlink("/proc/sys/kernel/domainname", path).expect("link");
            bundle
                .set("/root/readonly", json!(false))
                .set("/process/terminal", json!(true))
                .script("grep domainname /proc/self/mountinfo; echo end");
        });
        let bundle = container.bundle.path.to_string_lossy().into_owned();
        let command = container.command(&["run", "--bundle", &bundle, &container.id]);
        let outcome = call_on_terminal(command, wait::PATIENCE);
        assert!(!outcome.timed_out, "{place}: {outcome:#?}");
        let bound =
            outcome.stdout.lines().any(|line| line.contains("sysrq-trigger") && line.contains("devpts"));
        assert!(!bound, "{place}: a terminal was bound over sysrq-trigger: {outcome:#?}");
        container.finish();
    }
}

/// CVE-2025-52881: writes to procfs (labels, sysctls) are redirected by a link in a shared mount.
#[test]
fn sysctls_are_not_redirected() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let secret = secret_outside(bundle);
        bundle
            .mount("/proc/sys/net", "bind", &secret, &["bind"])
            .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
            .script("echo ran");
    });
    container.run();
    let secret = container.bundle.path.join("secret");
    assert!(!secret.join("ipv4").exists(), "a sysctl was written outside procfs");
    container.finish();
}

#[test]
fn a_race_on_a_mount_point_never_leaves_the_root() {
    require_root!();
    use std::sync::atomic::{AtomicBool, Ordering};
    let runtime = Runtime::subject();
    let victim = Container::edited(&runtime, |bundle| {
        let secret = secret_outside(bundle);
        std::fs::create_dir_all(bundle.rootfs().join("race/dir")).expect("directory");
        symlink(secret, bundle.rootfs().join("swap")).expect("link");
        bundle
            .set("/root/readonly", json!(false))
            .mount("/race/dir/made/here", "tmpfs", "tmpfs", &[])
            .script("true");
    });
    let (rootfs, secret) = (victim.bundle.rootfs(), victim.bundle.path.join("secret"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(Ordering::Relaxed) {
                let (dir, link) = (rootfs.join("race/dir"), rootfs.join("swap"));
                let _ = renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        for _round in 0..40 {
            victim.run();
            victim.delete_by_force();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!secret.join("made").exists(), "a mount point was made outside the root file system");
    victim.finish();
}

#[test]
fn many_processes_are_killed_as_a_whole() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle
            .set("/linux/resources/pids", json!({"limit": 64}))
            .script("for i in $(seq 40); do sleep 600 & done; wait");
    });
    container.run_with(&["--detach"]).expect_success();
    container.kill("KILL").expect_success();
    container.finish();
}

#[test]
fn the_host_is_not_reached_through_init_during_create() {
    require_root!();
    // A container that shares the pid namespace of another looks at its half-made init: it must not be traceable.
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
    });
    container.create(&[]).expect_success();
    let pid = container.init_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    assert!(status.contains("TracerPid:\t0"));
    let descriptors: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| target.starts_with("/sys/fs/cgroup") || target.starts_with("/proc/"))
        .collect();
    assert!(descriptors.is_empty(), "the waiting init holds {descriptors:?}");
    container.finish();
}
