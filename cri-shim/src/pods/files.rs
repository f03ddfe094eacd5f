//! What a pod gives its containers besides namespaces: resolv.conf, hosts, hostname and the directory for `/dev/shm`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::Error;
use super::pins;
use super::plan::Plan;
use crate::oci::SandboxFiles;

/// Largest file of the host that is copied.
const MAX_FILE: u64 = 1 << 20;

/// Where the files of a sandbox lie; known before they are made.
pub(super) fn places(directory: &Path, plan: &Plan) -> SandboxFiles {
    let shm = if plan.host_ipc { PathBuf::from("/dev/shm") } else { directory.join("shm") };
    SandboxFiles {
        resolv_conf: Some(directory.join("resolv.conf")),
        hosts: Some(directory.join("hosts")),
        hostname: Some(directory.join("hostname")),
        shm: Some(shm),
    }
}

/// Writes the files and mounts `/dev/shm`; blocking.
pub(super) fn make(directory: &Path, plan: &Plan, ips: &[IpAddr]) -> Result<(), Error> {
    let hostname = match plan.hostname.as_str() {
        "" => nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    let resolv_conf = match &plan.resolv_conf {
        Some(text) => text.clone(),
        None => host_file("/etc/resolv.conf")?,
    };
    let hosts = if plan.host_network { host_file("/etc/hosts")? } else { hosts_file(&hostname, ips) };
    write(&directory.join("resolv.conf"), &resolv_conf)?;
    write(&directory.join("hosts"), &hosts)?;
    write(&directory.join("hostname"), &format!("{hostname}\n"))?;
    if !plan.host_ipc {
        mount_shm(&directory.join("shm"))?;
    }
    Ok(())
}

fn mount_shm(path: &Path) -> Result<(), Error> {
    let fail = |action| move |source| Error::Path { action, path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(fail("create directory"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))
        .map_err(|errno| fail("mount tmpfs at")(errno.into()))
}

/// Unmounts what [`make`] has mounted.
pub(super) fn unmount(directory: &Path) -> Result<(), Error> {
    pins::unmount(&directory.join("shm"))
}

/// A host without the file has an empty one.
fn host_file(path: &str) -> Result<String, Error> {
    use io::Read;
    let fail = |source| Error::Path { action: "read", path: path.into(), source };
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text).map(drop).map_err(fail)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
    }
    Ok(text)
}

fn hosts_file(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for ip in ips {
        text.push_str(&format!("{ip}\t{hostname}\n"));
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    // Containers of other users read them; whoever may write decides the container's mount.
    let fail = |source| Error::Path { action: "write", path: path.to_owned(), source };
    std::fs::write(path, text).map_err(fail)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_itself() {
        let text = hosts_file("web-0", &["10.1.2.3".parse().expect("ip"), "fd00::1".parse().expect("ip")]);
        assert!(text.ends_with("10.1.2.3\tweb-0\nfd00::1\tweb-0\n"), "{text}");
    }
}
