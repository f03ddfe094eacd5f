//! The Debian packages that the tests and the quick start use, as data, and their installation.
//!
//! Only what is missing is installed, and that is said. Where there is no apt-get or no root the packages are taken to
//! be there: the tests that miss one are skipped, and the run fails for a skip that `tests/skips.txt` does not allow.

use std::path::Path;
use std::process::{Command, Stdio};

/// A package, a program that proves it is there already (however it was installed), and what it is for.
pub struct Package {
    name: &'static str,
    proof: &'static str,
    purpose: &'static str,
}

const fn package(name: &'static str, proof: &'static str, purpose: &'static str) -> Package {
    Package { name, proof, purpose }
}

pub const FOR_TESTS: &[Package] = &[
    package("build-essential", "cc", "linking, C parts of zstd and ring"),
    package("protobuf-compiler", "protoc", "the CRI's messages are generated at build time"),
    package("busybox-static", "/bin/busybox", "root file systems of the test bundles"),
    package("runc", "runc", "the oracle that every runtime suite runs on first"),
    package("crun", "crun", "second peer of comparisons and bench"),
    package("podman", "podman", "a caller of runtimes"),
    package("containerd", "containerd", "a caller of runtimes"),
    package(
        "containernetworking-plugins",
        "/usr/lib/cni/bridge",
        "the networks of containerd's pods in the bench",
    ),
    package("iptables", "iptables", "what those plugins call"),
    package("skopeo", "skopeo", "pushes images into the test registry, peer of pulls"),
    package("umoci", "umoci", "unpacks images, to compare layers file by file"),
    package("docker-registry", "docker-registry", "a registry on loopback"),
    package("apache2-utils", "htpasswd", "credentials of the test registry"),
    package("openssl", "openssl", "certificates of the test registry"),
    package("e2fsprogs", "mkfs.ext4", "small file systems that are full"),
    package("iproute2", "ip", "namespaces and interfaces in tests"),
    package("util-linux", "unshare", "namespaces in tests"),
    package("uidmap", "newuidmap", "rootless id maps"),
    package("nftables", "nft", "host ports and masquerading of the embedded network"),
    package("containernetworking-plugins", "/usr/lib/cni/bridge", "CNI plugins that pods are connected by"),
    package("libseccomp-dev", "/usr/include/seccomp.h", "the oracle of the seccomp compiler"),
    package("strace", "strace", "counts system calls in the bench"),
    package("tar", "tar", "the other reader of layers"),
    package("xz-utils", "xz", "archives"),
    package("zstd", "zstd", "zstd layers"),
    package("procps", "ps", "coracle ps"),
];

pub const FOR_GUEST: &[Package] = &[
    package("mmdebstrap", "mmdebstrap", "the guest's file system"),
    package(
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "signatures of its packages",
    ),
    package("e2fsprogs", "mkfs.ext4", "the guest's disk"),
    package("patchelf", "patchelf", "user-mode Linux with the guest's C library"),
    package("kmod", "depmod", "the guest's modules"),
];

pub const FOR_QUICKSTART: &[Package] = &[
    package("build-essential", "cc", "linking, C parts of zstd and ring"),
    package("protobuf-compiler", "protoc", "the CRI's messages are generated at build time"),
    package("nftables", "nft", "host ports and masquerading of the embedded network"),
    package("iproute2", "ip", "removes the bridge in the end"),
    package("busybox-static", "/bin/busybox", "the shell in images that are made here"),
    package("skopeo", "skopeo", "copies images that are made here into the registry"),
    package("docker-registry", "docker-registry", "a registry on loopback"),
    package("zstd", "zstd", "zstd layers of the web image"),
];

/// Installs the packages whose proof is missing.
pub fn install(wanted: &[Package]) -> Result<(), String> {
    let missing: Vec<&Package> = wanted.iter().filter(|package| !is_there(package.proof)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("package {} is missing ({})", package.name, package.purpose);
    }
    if !is_there("apt-get") || !rustix::process::geteuid().is_root() {
        println!("not installed: this needs apt-get and root");
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    println!("installing with apt-get: {}", names.join(" "));
    apt_get(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&names);
    apt_get(&arguments)
}

/// Runs apt-get, three times at most: mirrors fail now and then.
fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let mut last = String::new();
    for _attempt in 0..3 {
        let status = Command::new("apt-get")
            .args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Services of the packages (a registry, containerd) are started by tests, not by their installation.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => last = status.to_string(),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("apt-get {}: {last}", arguments.join(" ")))
}

fn is_there(proof: &str) -> bool {
    if proof.starts_with('/') {
        return Path::new(proof).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(proof).is_file())
}
