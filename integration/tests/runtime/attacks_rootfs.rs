//! Hostile root file systems: every place that the runtime makes, mounts, masks or changes to is a link or the wrong
//! kind of file in the image. The container may fail to start; nothing outside its root may be made, written or seen.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coracle_integration::{Bundle, Container, Runtime, require_root};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

/// Everything below a directory with type, mode and content: equal before and after means untouched.
fn picture(directory: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("metadata");
        let content = if meta.is_file() { std::fs::read(&path).expect("file") } else { Vec::new() };
        seen.push(format!("{} {:o} {content:?}", path.display(), meta.permissions().mode()));
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).expect("directory").map(|e| e.expect("entry").path()));
        }
    }
    seen.sort();
    seen
}

/// A directory of the host beside the root, with what an attacker would like to reach.
fn host_directory(bundle: &Bundle) -> PathBuf {
    let host = bundle.path.join("host");
    for directory in ["pts", "shm", "sub"] {
        std::fs::create_dir_all(host.join(directory)).expect("directory");
    }
    for file in ["null", "console", "file"] {
        std::fs::write(host.join(file), "outside").expect("file");
    }
    host
}

/// Replaces what is at `path` by a link.
fn swap(path: &Path, target: &Path) {
    if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path).expect("old directory");
    } else {
        let _ = std::fs::remove_file(path);
    }
    symlink(target, path).expect("link");
}

/// Runs a container whose root was prepared by `attack` and asserts that the host's directory is as it was.
fn untouched(name: &str, attack: impl FnOnce(&mut Bundle, &Path)) {
    let mut host = PathBuf::new();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        host = host_directory(bundle);
        bundle.script("echo x > /dev/null; ls -la / /dev >/dev/null; echo ran");
        let target = host.clone();
        attack(bundle, &target);
    });
    let before = picture(&host);
    let outcome = container.run();
    assert!(!outcome.timed_out, "{name}: {outcome:#?}");
    assert_eq!(picture(&host), before, "{name}: {outcome:#?}");
    container.finish();
}

/// The mounts of the configuration but those on `/dev` and below: the image's own `/dev` is used.
fn without_dev(bundle: &mut Bundle) {
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
}

#[test]
fn standard_directories_as_links_to_the_host() {
    require_root!();
    for directory in ["dev", "proc", "sys", "etc", "run", "tmp"] {
        for up in [true, false] {
            untouched(directory, |bundle, host| {
                bundle.set("/root/readonly", json!(false)).mount("/run/made", "tmpfs", "tmpfs", &[]);
                bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/etc", "/tmp", "/run/sub"]));
                let target = if up { Path::new("../host").to_owned() } else { host.to_owned() };
                swap(&bundle.rootfs().join(directory), &target);
            });
        }
    }
}

#[test]
fn links_to_the_root_itself() {
    require_root!();
    for directory in ["dev", "proc", "sys"] {
        untouched(directory, |bundle, _| {
            bundle.set("/root/readonly", json!(false));
            swap(&bundle.rootfs().join(directory), Path::new("/"));
        });
    }
}

#[test]
fn device_nodes_are_not_made_through_links() {
    require_root!();
    untouched("parent", |bundle, host| {
        without_dev(bundle);
        swap(&bundle.rootfs().join("dev"), host);
        bundle
            .set("/root/readonly", json!(false))
            .push("/linux/devices", json!({"path": "/dev/sub/disk", "type": "c", "major": 1, "minor": 3}));
    });
    untouched("node", |bundle, host| {
        without_dev(bundle);
        swap(&bundle.rootfs().join("dev/null"), &host.join("null"));
        swap(&bundle.rootfs().join("dev/ptmx"), &host.join("file"));
        bundle.set("/root/readonly", json!(false));
    });
}

#[test]
fn device_nodes_of_a_user_namespace_are_not_bound_over_links() {
    require_root!();
    untouched("bind", |bundle, host| {
        without_dev(bundle);
        swap(&bundle.rootfs().join("dev/zero"), &host.join("file"));
        bundle.set("/root/readonly", json!(false)).user_namespace();
    });
}

#[test]
fn masked_and_read_only_paths_are_resolved_inside() {
    require_root!();
    untouched("links", |bundle, host| {
        let rootfs = bundle.rootfs();
        swap(&rootfs.join("mnt/dir"), host);
        swap(&rootfs.join("mnt/file"), &host.join("file"));
        swap(&rootfs.join("mnt/up"), Path::new("../../../../../../../../../../../.."));
        bundle
            .set("/linux/maskedPaths", json!(["/mnt/dir", "/mnt/file", "/mnt/up/host", "/mnt/up/etc"]))
            .set("/linux/readonlyPaths", json!(["/mnt/dir/sub", "/mnt/up/tmp"]));
    });
}

#[test]
fn a_masked_path_stays_masked_where_its_parent_is_a_link() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        std::fs::create_dir(bundle.rootfs().join("real")).expect("directory");
        std::fs::write(bundle.rootfs().join("real/secret"), "s3cret").expect("file");
        swap(&bundle.rootfs().join("link"), Path::new("/real"));
        bundle
            .set("/linux/maskedPaths", json!(["/link/secret"]))
            .script("cat /real/secret /link/secret; echo end");
    });
    assert_eq!(container.run().expect_success(), "end\n");
    container.finish();
}

#[test]
fn tmpcopyup_copies_nothing_of_the_host() {
    require_root!();
    untouched("copy", |bundle, host| {
        swap(&bundle.rootfs().join("mnt/data"), host);
        bundle
            .set("/root/readonly", json!(false))
            .mount("/mnt/data", "tmpfs", "tmpfs", &["tmpcopyup"])
            .script("grep -r outside /mnt && exit 9; echo x > /mnt/data/file; exit 0");
    });
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let host = host_directory(bundle);
        std::fs::create_dir(bundle.rootfs().join("data")).expect("directory");
        swap(&bundle.rootfs().join("data/link"), &host.join("file"));
        bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]).script("readlink /data/link; cat /data/link");
    });
    let outcome = container.run();
    assert!(!outcome.stdout.contains("outside") && outcome.stdout.contains("host/file"), "{outcome:#?}");
    container.finish();
}

#[test]
fn the_working_directory_is_made_inside() {
    require_root!();
    untouched("cwd", |bundle, host| {
        swap(&bundle.rootfs().join("work"), host);
        bundle.set("/root/readonly", json!(false)).set("/process/cwd", json!("/work/made/here"));
    });
}

#[test]
fn cgroups_are_not_mounted_through_links() {
    require_root!();
    untouched("cgroup", |bundle, host| {
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/sys");
        swap(&bundle.rootfs().join("sys"), host);
        bundle.set("/root/readonly", json!(false)).mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "ro"],
        );
    });
}

#[test]
fn a_bind_that_becomes_a_link_for_later_mounts_stays_inside() {
    require_root!();
    // The first mount brings links of another tenant's volume; the second one goes through them (CVE-2021-30465).
    untouched("volume", |bundle, host| {
        let volume = bundle.path.join("volume");
        std::fs::create_dir(&volume).expect("volume");
        swap(&volume.join("evil"), host);
        swap(&volume.join("up"), Path::new("../../../host"));
        let source = volume.to_string_lossy().into_owned();
        bundle
            .set("/root/readonly", json!(false))
            .mount("/mnt", "bind", &source, &["rbind"])
            .mount("/mnt/evil/sub", "tmpfs", "tmpfs", &[])
            .mount("/mnt/up/new", "tmpfs", "tmpfs", &[]);
    });
}

/// Without HOME in the configuration the runtime looks into the image's passwd file, whatever the image put there.
#[test]
fn a_passwd_file_that_is_a_pipe_or_has_no_end() {
    require_root!();
    for hostile in ["pipe", "zero", "directory"] {
        let container = Container::edited(&Runtime::subject(), |bundle| {
            bundle.script("echo home=$HOME");
            let etc = bundle.rootfs().join("etc");
            std::fs::create_dir_all(&etc).expect("directory");
            let path = etc.join("passwd");
            let _ = std::fs::remove_file(&path);
            match hostile {
                "pipe" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("fifo"),
                "zero" => symlink("/dev/zero", &path).expect("link"),
                _ => std::fs::create_dir(&path).expect("directory"),
            }
        });
        let outcome = container.run();
        assert!(!outcome.timed_out, "{hostile}: {outcome:#?}");
        assert_eq!(outcome.stdout.trim(), "home=/", "{hostile}: {outcome:#?}");
        container.finish();
    }
}

/// A file system of the host on which nobody may write, nor have set-id programs, devices or programs; unmounted in the end.
struct Forbidding(PathBuf);

impl Forbidding {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("mount point");
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // The file system itself could be written: it is the mount that forbids it.
        let late = MountFlags::RDONLY;
        rustix::mount::mount("forbidding", &at, "tmpfs", flags - late, Some(c"mode=777")).expect("tmpfs");
        let mounted = Self(at);
        rustix::mount::mount_remount(&mounted.0, flags | MountFlags::BIND, "").expect("read-only");
        mounted
    }
}

impl Drop for Forbidding {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What root of a user namespace does to get rid of a mount's flags: on the mount, on a bind of it, in a mount namespace of
/// its own.
const UNFORBID: &str = r#"
try() { "$@" 2>/dev/null && echo "$*"; }
try mount -o remount,bind,rw,suid,dev,exec /data
try touch /data/written
mount --bind /data /mnt 2>/dev/null
try mount -o remount,bind,rw,suid,dev,exec /mnt
try touch /mnt/written
try unshare -m sh -c 'mount -o remount,bind,rw /data && touch /data/written'
awk '$5 == "/data" { print $6 }' /proc/self/mountinfo
"#;

#[test]
fn flags_of_the_host_stay_on_what_a_user_namespace_gets() {
    require_root!();
    for (name, options, reachable) in [
        ("reachable", vec!["rbind"], true),
        ("unreachable", vec!["rbind"], false),
        ("unreachable and alone", vec!["bind"], false),
        ("idmapped", vec!["rbind", "ridmap"], true),
        ("idmapped and unreachable", vec!["bind", "idmap"], false),
    ] {
        let mut forbidding = None;
        let container = Container::edited(&Runtime::subject(), |bundle| {
            let outer = bundle.path.join("outer");
            let mounted = forbidding.insert(Forbidding::mount(outer.join("inner")));
            let mode = if reachable { 0o755 } else { 0o700 };
            std::fs::set_permissions(&outer, std::fs::Permissions::from_mode(mode)).expect("mode");
            bundle
                .set("/root/readonly", json!(false))
                .user_namespace()
                .capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
                .script(UNFORBID)
                .mount("/data", "bind", &mounted.0.to_string_lossy(), &options);
        });
        let outcome = container.run();
        if container.runtime.deny.is_some() && !outcome.success() {
            // Without the calls that keep the flags it must be refused.
            drop(forbidding);
            container.finish();
            continue;
        }
        let shown = outcome.expect_success();
        let flags: Vec<&str> = shown.trim().split(',').collect();
        for flag in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(flags.contains(&flag), "{name}: {flag} is gone: {shown}");
        }
        assert_eq!(shown.lines().count(), 1, "{name}: {shown}");
        drop(forbidding);
        container.finish();
    }
}
