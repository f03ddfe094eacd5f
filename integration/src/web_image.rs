//! Two images that a pod can be made of: a real nginx from Debian packages, and a client for it.
//!
//! Both are OCI layouts (directories with one image), so that everything can take them: `skopeo copy oci:DIR:1 …`,
//! [`Registry::push_layout`](crate::images::Registry::push_layout), `coraclectl import --name NAME DIR`.
//!
//! ```no_run
//! # use coracle_integration::{images::Registry, web_image};
//! # fn main() -> std::io::Result<()> {
//! # let work = std::path::Path::new("/tmp/x");
//! let nginx = web_image::nginx(work, &work.join("debs"))?; // `debs` keeps the packages: pass a directory that stays
//! let client = web_image::client(work)?;
//! let registry = Registry::start(work)?;
//! let web = registry.push_layout(&nginx, "nginx")?; // 127.0.0.1:PORT/nginx:v1
//! let shell = registry.push_layout(&client, "client")?;
//! # Ok(()) }
//! ```
//!
//! | | nginx | client |
//! |---|---|---|
//! | layers | shell (gzip), libraries (zstd), nginx (gzip), site (zstd) | shell (gzip), one file (zstd) |
//! | command | `nginx -g 'daemon off;'` | `sh`, with wget, nc and the usual commands in `/bin` |
//! | configuration | 80/tcp exposed, stopped by SIGQUIT, workers are user `www-data` (33) | none |
//!
//! `GET /` answers 200 with [`PAGE`]; logs go to the container's output and errors. The nginx is the package of this
//! machine's Debian with the libraries that it depends on, fetched with `apt-get download` and unpacked, not installed.
//! Needs apt-get, dpkg-deb, tar, gzip, zstd, sha256sum and busybox-static; no root.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::images::run;

/// What `GET /` answers.
pub const PAGE: &str = "nginx, served by Coracle\n";

/// The tag inside the layouts.
pub const TAG: &str = "1";

const APPLETS: [&str; 36] = [
    "sh", "ls", "cat", "echo", "id", "env", "sleep", "ps", "true", "false", "wget", "nc", "ip", "ping",
    "hostname", "nslookup", "mount", "umount", "df", "stat", "touch", "rm", "mkdir", "cp", "mv", "grep",
    "sed", "head", "tail", "wc", "kill", "top", "uname", "date", "test", "dd",
];

/// Debian's merged `/usr`: packages may still ship the short names.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

const SITE: &str = "server {
    listen 80 default_server;
    root /usr/share/coracle;
    index index.html;
}
";

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Zstd,
}

/// Makes the layout of the nginx image in `work/nginx`; packages are kept in `debs` and taken from there.
pub fn nginx(work: &Path, debs: &Path) -> io::Result<PathBuf> {
    let layout = Layout::new(work, "nginx")?;
    let libraries: Vec<String> = closure("nginx")?.into_iter().collect();
    let (servers, libraries): (Vec<_>, Vec<_>) =
        libraries.into_iter().partition(|name| name.starts_with("nginx"));
    let layers = [
        layout.layer("shell", Compression::Gzip, shell)?,
        layout.layer("libraries", Compression::Zstd, |root| unpack(&libraries, debs, root))?,
        layout.layer("server", Compression::Gzip, |root| unpack(&servers, debs, root))?,
        layout.layer("site", Compression::Zstd, site)?,
    ];
    layout.finish(
        &layers,
        &json!({
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        }),
    )
}

/// Makes the layout of the client image in `work/client`.
pub fn client(work: &Path) -> io::Result<PathBuf> {
    let layout = Layout::new(work, "client")?;
    let release = |root: &Path| write(&root.join("etc/release"), "client 1\n");
    let layers = [
        layout.layer("shell", Compression::Gzip, shell)?,
        layout.layer("release", Compression::Zstd, release)?,
    ];
    layout.finish(&layers, &json!({"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}))
}

fn shell(root: &Path) -> io::Result<()> {
    for directory in
        ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "root", "run", "tmp", "var/log", "var/tmp"]
    {
        std::fs::create_dir_all(root.join(directory))?;
    }
    for name in MERGED {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    symlink("../run", root.join("var/run"))?;
    for name in ["tmp", "var/tmp"] {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o1777))?;
    }
    let busybox = crate::privilege::program("busybox")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "busybox (package busybox-static)"))?;
    std::fs::copy(busybox, root.join("usr/bin/busybox"))?;
    for name in APPLETS {
        symlink("busybox", root.join("usr/bin").join(name))?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
        nobody:x:65534:65534:nobody:/:/bin/false\n";
    write(&root.join("etc/passwd"), passwd)?;
    write(&root.join("etc/group"), "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n")
}

/// What Docker's image has on top of the package: one site, and logs that go where the container's output goes.
fn site(root: &Path) -> io::Result<()> {
    write(&root.join("etc/nginx/conf.d/default.conf"), SITE)?;
    write(&root.join("usr/share/coracle/index.html"), PAGE)?;
    let logs = root.join("var/log/nginx");
    std::fs::create_dir_all(&logs)?;
    symlink("/dev/stdout", logs.join("access.log"))?;
    symlink("/dev/stderr", logs.join("error.log"))
}

/// A package, and the libraries and packages of its own source that it needs, as far as they need each other.
fn closure(package: &str) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::from([package.to_owned()]);
    let mut open = vec![package.to_owned()];
    while let Some(next) = open.pop() {
        let output = Command::new("apt-cache").args(["depends", "--important", &next]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for needed in text.lines().filter_map(|line| line.strip_prefix("  Depends: ")) {
            let wanted = needed.contains("lib") || needed.starts_with(package);
            if wanted && found.insert(needed.to_owned()) {
                open.push(needed.to_owned());
            }
        }
    }
    Ok(found)
}

fn unpack(packages: &[String], debs: &Path, root: &Path) -> io::Result<()> {
    std::fs::create_dir_all(debs)?;
    for package in packages {
        run(Command::new("dpkg-deb").arg("-x").arg(deb(package, debs)?).arg(root))?;
    }
    for name in MERGED.map(|name| root.join(name)).iter().filter(|path| path.is_dir()) {
        let target = root.join("usr").join(name.file_name().unwrap_or_default());
        std::fs::create_dir_all(&target)?;
        run(Command::new("cp").arg("-a").arg(name.join(".")).arg(&target))?;
        std::fs::remove_dir_all(name)?;
    }
    for unused in ["usr/share/doc", "usr/share/man", "usr/share/lintian"] {
        let path = root.join(unused);
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// The file of a package, fetched when it is not there yet.
fn deb(package: &str, debs: &Path) -> io::Result<PathBuf> {
    if let Some(there) = cached(package, debs)? {
        return Ok(there);
    }
    // Apart first: who else fetches the same package never sees half of it.
    let apart = debs.join(format!(".{package}.{}.{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&apart)?;
    let download = || run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(&apart));
    let fetched = download().or_else(|_| {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        download()
    });
    let moved = fetched.and_then(|()| {
        let file = cached(package, &apart)?.ok_or(io::ErrorKind::NotFound)?;
        let target = debs.join(file.file_name().unwrap_or_default());
        std::fs::rename(&file, &target).map(|()| target)
    });
    std::fs::remove_dir_all(&apart)?;
    moved
}

fn cached(package: &str, debs: &Path) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(debs)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".deb")) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// An OCI layout in the making.
struct Layout {
    directory: PathBuf,
    parts: PathBuf,
}

/// A layer that is stored: its descriptor and its diff-id.
struct Stored {
    descriptor: Value,
    diff_id: String,
}

impl Layout {
    fn new(work: &Path, name: &str) -> io::Result<Self> {
        let layout = Self { directory: work.join(name), parts: work.join(format!("{name}.parts")) };
        std::fs::create_dir_all(layout.directory.join("blobs/sha256"))?;
        std::fs::create_dir_all(&layout.parts)?;
        Ok(layout)
    }

    fn layer(
        &self,
        name: &str,
        compression: Compression,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Stored> {
        let root = self.parts.join(name);
        std::fs::create_dir(&root)?;
        fill(&root)?;
        let tar = self.parts.join(format!("{name}.tar"));
        let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name"];
        run(Command::new("tar").args(owner).arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."))?;
        std::fs::remove_dir_all(&root)?;
        let diff_id = digest(&tar)?;
        let (mut program, suffix, kind) = match compression {
            Compression::Gzip => (Command::new("gzip"), "gz", "gzip"),
            Compression::Zstd => (Command::new("zstd"), "zst", "zstd"),
        };
        program.arg("-q").arg(&tar);
        run(&mut program)?;
        let packed = self.parts.join(format!("{name}.tar.{suffix}"));
        let descriptor = self.store(&packed, &format!("application/vnd.oci.image.layer.v1.tar+{kind}"))?;
        Ok(Stored { descriptor, diff_id })
    }

    /// Moves a file to its place by digest; its descriptor.
    fn store(&self, file: &Path, media_type: &str) -> io::Result<Value> {
        let digest = digest(file)?;
        let size = file.metadata()?.len();
        std::fs::rename(file, self.directory.join("blobs").join(digest.replace(':', "/")))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    }

    /// Writes configuration, manifest and index.
    fn finish(self, layers: &[Stored], process: &Value) -> io::Result<PathBuf> {
        let document = self.parts.join("document");
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": process, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        write(&document, &config.to_string())?;
        let config = self.store(&document, "application/vnd.oci.image.config.v1+json")?;
        let descriptors: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors});
        write(&document, &manifest.to_string())?;
        let mut manifest = self.store(&document, kind)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": TAG});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&self.directory.join("index.json"), &index.to_string())?;
        write(&self.directory.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}")?;
        std::fs::remove_dir_all(&self.parts)?;
        Ok(self.directory)
    }
}

fn digest(file: &Path) -> io::Result<String> {
    let output = Command::new("sha256sum").arg(file).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split(' ').next() {
        Some(hex) if hex.len() == 64 => Ok(format!("sha256:{hex}")),
        _ => Err(io::Error::other(format!("sha256sum {}: {}", file.display(), output.status))),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}
