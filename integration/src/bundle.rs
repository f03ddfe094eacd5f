//! Bundles: a busybox root file system and an edited copy of the configuration that `runc spec` writes.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const DEFAULT_CONFIG: &str = include_str!("default_config.json");

const APPLETS: &[&str] = &[
    "sh", "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "echo",
    "env", "false", "find", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod", "mkfifo",
    "mount", "mv", "nc", "ps", "printf", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sleep",
    "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "ulimit", "umount", "uname",
    "uniq", "wc", "xargs", "yes", "nice", "ip", "unshare",
];

/// A directory with `rootfs/` and `config.json`.
#[derive(Debug)]
pub struct Bundle {
    pub path: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// Makes a bundle in `path`, whose groups and environment carry `id`. Nothing is written before [`Bundle::save`].
    pub fn create(path: &Path, id: &str) -> Self {
        let rootfs = path.join("rootfs");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "mnt", "run", "home/user"] {
            std::fs::create_dir_all(rootfs.join(directory)).expect("directory of the root file system");
        }
        std::fs::set_permissions(rootfs.join("tmp"), std::fs::Permissions::from_mode(0o1777))
            .expect("mode of /tmp");
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
            .expect("/bin/busybox (package busybox-static)");
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("applet");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
        std::fs::write(rootfs.join("etc/passwd"), passwd).expect("/etc/passwd");
        std::fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:\n")
            .expect("/etc/group");

        let mut config: Value = serde_json::from_str(DEFAULT_CONFIG).expect("default configuration");
        config["linux"]["cgroupsPath"] = json!(crate::leaks::cgroups_path(id));
        let mut bundle = Self { path: path.to_owned(), config };
        bundle.push("/process/env", json!(format!("CORACLE_TEST_ID={id}")));
        bundle
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The program of the container: `sh -c script`.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// Sets the value at a JSON pointer, making the objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        *self.at(pointer) = value;
        self
    }

    /// Appends to the array at a JSON pointer.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let place = self.at(pointer);
        if place.is_null() {
            *place = json!([]);
        }
        place.as_array_mut().expect("an array").push(value);
        self
    }

    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        if let Some(object) = self.at(parent).as_object_mut() {
            object.remove(key);
        }
        self
    }

    fn at(&mut self, pointer: &str) -> &mut Value {
        let keys = pointer.split('/').skip(1);
        keys.fold(&mut self.config, |value, key| match key.parse::<usize>() {
            Ok(index) if value.is_array() => &mut value[index],
            _ => &mut value[key],
        })
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        self.push(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        )
    }

    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        self.at("/linux/namespaces")
            .as_array_mut()
            .expect("namespaces")
            .retain(|entry| entry["type"] != kind);
        self
    }

    pub fn join_namespace(&mut self, kind: &str, path: &str) -> &mut Self {
        self.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path}))
    }

    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self.set("/process/capabilities/inheritable", json!([]))
            .set("/process/capabilities/ambient", json!([]))
    }

    /// A user namespace of 65,536 ids from 100,000 on; the root file system then belongs to it.
    pub fn user_namespace(&mut self) -> &mut Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        chown_tree(&self.rootfs(), 100_000);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Writes `config.json`.
    pub fn save(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("configuration as text");
        std::fs::write(self.path.join("config.json"), text).expect("config.json");
    }
}

fn chown_tree(path: &Path, shift: u32) {
    let kind = std::fs::symlink_metadata(path).expect("metadata");
    if kind.is_symlink() {
        std::os::unix::fs::lchown(path, Some(shift), Some(shift)).expect("owner");
        return;
    }
    chown(path, Some(shift), Some(shift)).expect("owner");
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).expect("directory") {
            chown_tree(&entry.expect("entry").path(), shift);
        }
    }
}
