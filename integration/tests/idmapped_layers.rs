//! Layers of the image store below a pod with a user namespace: the store's overlay over lower mounts whose ids are mapped
//! by the runtime's `mount_setattr`. Both crates meet only here and in the programs that link them.
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_image_store::layer::{DiffId, ErofsLayers, LayerStore, TreeLayers, why_not_erofs};
use coracle_image_store::mount::{self, Lower, OverlayOptions};
use coracle_runtime::sys::mount::{SetAttributes, mount_setattr};

/// A process in a user namespace of its own whose ids 0 to 65535 are the host's from 100000 on.
struct UserNamespace(Child);

impl UserNamespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        let child =
            command.args(["--user", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let namespace = format!("/proc/{}/ns/user", child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_link(&namespace).unwrap() == fs::read_link("/proc/self/ns/user").unwrap() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", child.id()), "0 100000 65536").unwrap();
        }
        Self(child)
    }

    fn open(&self) -> fs::File {
        fs::File::open(format!("/proc/{}/ns/user", self.0.id())).unwrap()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tar(directory: &Path) -> Vec<u8> {
    fs::create_dir_all(directory.join("d")).unwrap();
    for (name, owner) in [("root", 0), ("user", 1000)] {
        fs::write(directory.join(name), name).unwrap();
        std::os::unix::fs::chown(directory.join(name), Some(owner), Some(owner)).unwrap();
    }
    Command::new("tar").arg("-C").arg(directory).args(["-c", "."]).output().unwrap().stdout
}

fn diff_id(tar: &Path) -> DiffId {
    let output = Command::new("sha256sum").arg(tar).output().unwrap().stdout;
    DiffId::from_hex(&String::from_utf8(output).unwrap()[..64]).unwrap()
}

fn check(store: &dyn LayerStore, scratch: &Path, namespace: &UserNamespace, tar: &[u8]) {
    let file = scratch.join("layer.tar");
    fs::write(&file, tar).unwrap();
    let mut writer = store.begin(diff_id(&file)).unwrap();
    writer.write(tar).unwrap();
    let layer = writer.finish().unwrap();
    let lower = store.mount(&layer.diff_id).unwrap();
    let user_namespace = namespace.open();
    let idmap = |mount: BorrowedFd<'_>| {
        // MOUNT_ATTR_IDMAP
        let change = SetAttributes {
            set: 0x0010_0000,
            user_namespace: Some(user_namespace.as_fd()),
            ..Default::default()
        };
        mount_setattr(mount, &change).map_err(std::io::Error::from)
    };
    let options = OverlayOptions { idmap: Some(&idmap), volatile: true, ..OverlayOptions::default() };
    let [upper, work, target] = ["upper", "work", "target"].map(|name| scratch.join(name));
    [&upper, &work, &target].iter().for_each(|directory| fs::create_dir(directory).unwrap());
    let merged = mount::overlay(&[Lower::Fd(lower.as_fd())], Some((&upper, &work)), &options).unwrap();
    mount::attach(merged.as_fd(), &target).unwrap();
    let owner = |name: &str| fs::metadata(target.join(name)).unwrap().uid();
    assert_eq!([owner("root"), owner("user"), owner("d")], [100_000, 101_000, 100_000]);
    // Copied up, a file keeps the owner that was seen.
    fs::File::options().append(true).open(target.join("user")).unwrap();
    assert_eq!(fs::metadata(upper.join("user")).unwrap().uid(), 101_000);
    // The store's own mount is as before.
    assert_eq!(
        fs::metadata(format!("/proc/self/fd/{}/user", std::os::fd::AsRawFd::as_raw_fd(&lower.as_fd())))
            .unwrap()
            .uid(),
        1000
    );
    mount::detach(&target).unwrap();
}

#[test]
fn lower_layers_are_idmapped_for_a_user_namespace() {
    let test = "lower_layers_are_idmapped_for_a_user_namespace";
    let scratch = tempfile::tempdir().unwrap();
    let reason = if rustix::process::geteuid().is_root() {
        why_not_erofs(scratch.path()).unwrap()
    } else {
        Some("needs root".into())
    };
    if let Some(reason) = reason {
        eprintln!("SKIP {test}: {reason}");
        if let Ok(path) = std::env::var("CORACLE_SKIPS") {
            use std::io::Write;
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            writeln!(file, "SKIP {test}: {reason}").unwrap();
        }
        return;
    }
    // The mounts vanish with this thread's namespace, whatever happens.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    use rustix::mount::MountPropagationFlags;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let namespace = UserNamespace::new();
    let tar = tar(&scratch.path().join("source"));
    let [erofs, tree] = ["erofs", "tree"].map(|name| scratch.path().join(name));
    check(&ErofsLayers::open(&erofs).unwrap(), &erofs, &namespace, &tar);
    check(&TreeLayers::open(&tree).unwrap(), &tree, &namespace, &tar);
}
