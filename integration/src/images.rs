//! Test images and a registry for them: `docker save` archives of files of this machine (busybox, parts of installed
//! Debian packages), pushed by skopeo to Debian's docker-registry on loopback.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One layer of a test image: the tar of a directory's content.
pub struct Layer {
    tar: PathBuf,
    diff_id: String,
}

/// Makes a layer of the files of a directory, by GNU tar.
pub fn layer(work: &Path, name: &str, directory: &Path) -> io::Result<Layer> {
    let tar = work.join(format!("{name}.tar"));
    run(Command::new("tar").arg("--sort=name").arg("-cf").arg(&tar).arg("-C").arg(directory).arg("."))?;
    let sum = Command::new("sha256sum").arg(&tar).output()?;
    let diff_id = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    Ok(Layer { tar, diff_id })
}

/// A layer with busybox as the usual commands, and a passwd file.
pub fn busybox_layer(work: &Path) -> io::Result<Layer> {
    let root = work.join("busybox");
    for directory in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    let busybox = crate::privilege::program("busybox").ok_or(io::ErrorKind::NotFound)?;
    std::fs::copy(busybox, root.join("bin/busybox"))?;
    for name in ["sh", "ls", "cat", "echo", "id", "env", "sleep", "ps", "true", "false"] {
        let link = root.join("bin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/tmp:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\n")?;
    layer(work, "busybox", &root)
}

/// Writes a `docker save` archive of these layers; its command is `sh`.
pub fn archive(work: &Path, name: &str, layers: &[&Layer]) -> io::Result<PathBuf> {
    archive_with(work, name, layers, &["sh"])
}

/// The same with another command.
pub fn archive_with(work: &Path, name: &str, layers: &[&Layer], command: &[&str]) -> io::Result<PathBuf> {
    let parts = work.join(format!("{name}.parts"));
    std::fs::create_dir_all(&parts)?;
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": command, "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    std::fs::write(parts.join("config.json"), config.to_string())?;
    let mut members = Vec::new();
    for layer in layers {
        let member = format!("{}.tar", layer.diff_id);
        let target = parts.join(&member);
        if !target.exists() {
            std::fs::hard_link(&layer.tar, target)?;
        }
        members.push(member);
    }
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [format!("example.com/{name}:v1")], "Layers": members}]);
    std::fs::write(parts.join("manifest.json"), manifest.to_string())?;
    let archive = work.join(format!("{name}.docker.tar"));
    run(Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&parts)
        .args(["manifest.json", "config.json"])
        .args(&members))?;
    Ok(archive)
}

/// How a registry is reached; by default over plain HTTP by anybody.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Certificate and key of the server: it speaks TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Clients need a certificate of this authority.
    pub client_authority: Option<PathBuf>,
    /// A file of `htpasswd -B`: basic authentication.
    pub users: Option<PathBuf>,
}

impl Access {
    /// The parts of the registry's configuration, below `http` and on the top level.
    fn configuration(&self) -> (String, String) {
        let tls = self.certificate.as_ref().map_or_else(String::new, |(certificate, key)| {
            let clients = self
                .client_authority
                .as_ref()
                .map_or_else(String::new, |ca| format!(", clientcas: [{}]", ca.display()));
            format!(", tls: {{certificate: {}, key: {}{clients}}}", certificate.display(), key.display())
        });
        let users = self.users.as_ref().map_or_else(String::new, |file| {
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
        });
        (tls, users)
    }
}

/// A docker-registry of its own on loopback, ended when dropped.
pub struct Registry {
    process: Child,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl Registry {
    /// Starts one that keeps its data below `work`.
    pub fn start(work: &Path) -> io::Result<Self> {
        Self::start_with(work, &Access::default())
    }

    /// Starts one with TLS or users; what another one kept below `work` is there.
    pub fn start_with(work: &Path, access: &Access) -> io::Result<Self> {
        let (tls, users) = access.configuration();
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = work.join("registry-data");
        std::fs::create_dir_all(&data)?;
        let config = work.join("registry.yml");
        let mut file = std::fs::File::create(&config)?;
        writeln!(file, "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}")?;
        writeln!(
            file,
            "{users}storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"{tls}}}",
            data.display()
        )?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
        }
        Ok(registry)
    }

    /// Pushes an archive as `<name>:v1`; `options` go to `skopeo copy`. Returns the reference.
    pub fn push(&self, archive: &Path, name: &str, options: &[&str]) -> io::Result<String> {
        let reference = format!("{}/{name}:v1", self.address);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]).args(options);
        run(skopeo
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{reference}")))?;
        Ok(reference)
    }

    /// Pushes the image of an OCI layout that [`web_image`](crate::web_image) made, as it is, as `<name>:v1`. Returns
    /// the reference.
    pub fn push_layout(&self, layout: &Path, name: &str) -> io::Result<String> {
        let reference = format!("{}/{name}:v1", self.address);
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{}", layout.display(), crate::web_image::TAG))
            .arg(format!("docker://{reference}")))?;
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
