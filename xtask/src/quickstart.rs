//! `cargo xtask quickstart`: a first container, with what is there.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::build;

/// Builds the programs, runs a busybox bundle with `coracle`, then an image pulled from a registry with `coraclectl`.
pub fn run(root: &Path) -> Result<(), String> {
    let build = ["build", "-p", "coracle-runtime", "-p", "coracle-cri", "--bins"];
    crate::succeed(crate::cargo(root).args(build), "cargo build")?;
    let programs = build::target_dir(root)?.join("debug");
    let work = std::env::temp_dir().join(format!("coracle-quickstart-{}", std::process::id()));
    let bundle = work.join("bundle");
    println!("\n1. a bundle of busybox, run by coracle");
    let outcome = make_bundle(&programs.join("coracle"), &bundle)
        .and_then(|()| run_bundle(&programs.join("coracle"), &bundle))
        .and_then(|()| {
            println!("\n2. the same root as an image: pushed to a registry on loopback, pulled and run by coraclectl");
            with_registry(&work, |port| from_registry(&programs.join("coraclectl"), &work, port))
        });
    std::fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    outcome?;
    println!("\nNext: README.md, \"Ten minutes\". coracled serves images so far, pods not yet.");
    Ok(())
}

/// Serves a registry from `work` while `then` runs.
fn with_registry(work: &Path, then: impl FnOnce(u16) -> Result<(), String>) -> Result<(), String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.map_err(|error| format!("loopback: {error}"))?.port();
    let config = work.join("registry.yml");
    let storage = work.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        storage.display()
    );
    write(&config, &text)?;
    let mut registry = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("docker-registry: {error}"))?;
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() && Instant::now() < end {
        let _ = rustix::event::poll(&mut [], Some(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
    }
    let outcome = then(port);
    let _ = registry.kill();
    let _ = registry.wait();
    outcome
}

fn from_registry(coraclectl: &Path, work: &Path, port: u16) -> Result<(), String> {
    let layout = work.join("layout");
    make_layout(&work.join("bundle/rootfs"), &layout)?;
    let image = format!("127.0.0.1:{port}/hello:1");
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:1", layout.display())).arg(format!("docker://{image}"));
    crate::succeed(copy.stdin(Stdio::null()), "skopeo copy")?;
    let store = work.join("store");
    for words in [
        vec!["pull", &image],
        vec!["images"],
        vec!["run", &image, "sh", "-c", "echo hello from an image; id"],
    ] {
        println!("$ coraclectl {}", words.join(" "));
        let mut command = Command::new(coraclectl);
        command.arg("--root").arg(&store).args(&words).stdin(Stdio::null());
        crate::succeed(&mut command, "coraclectl")?;
    }
    Ok(())
}

/// An OCI layout with one layer.
fn make_layout(rootfs: &Path, layout: &Path) -> Result<(), String> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(|error| format!("{}: {error}", blobs.display()))?;
    let tar = layout.join("layer.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(rootfs).arg("-cf").arg(&tar).args(["--owner=0", "--group=0", "."]);
    crate::succeed(&mut pack, "tar")?;
    let layer = store_blob(&blobs, &tar, "application/vnd.oci.image.layer.v1.tar")?;
    let document = layout.join("document");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    write(&document, &config.to_string())?;
    let config = store_blob(&blobs, &document, "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    write(&document, &manifest.to_string())?;
    let mut manifest = store_blob(&blobs, &document, kind)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    write(&layout.join("index.json"), &json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    write(&layout.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}")
}

/// Moves a file to its place by digest; its descriptor.
fn store_blob(blobs: &Path, file: &Path, media_type: &str) -> Result<Value, String> {
    let output =
        Command::new("sha256sum").arg(file).output().map_err(|error| format!("sha256sum: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hex = text.split(' ').next().unwrap_or_default();
    let size = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    std::fs::rename(file, blobs.join(hex)).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size}))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn make_bundle(coracle: &Path, bundle: &Path) -> Result<(), String> {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).map_err(|error| format!("{}: {error}", bin.display()))?;
    std::fs::copy("/bin/busybox", bin.join("busybox")).map_err(|error| format!("/bin/busybox: {error}"))?;
    for applet in ["sh", "echo", "ls", "ps", "id", "hostname", "cat"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))
            .map_err(|error| format!("{applet}: {error}"))?;
    }
    crate::succeed(Command::new(coracle).arg("spec").current_dir(bundle), "coracle spec")?;
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut config: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", SCRIPT]);
    std::fs::write(&path, config.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}

/// What the first container shows: that it is alone.
const SCRIPT: &str = "echo \"hello from $(hostname), pid $$ of:\"; ps";

fn run_bundle(coracle: &Path, bundle: &Path) -> Result<(), String> {
    let state = bundle.join("state");
    println!("coracle --root {} run --bundle {} hello", state.display(), bundle.display());
    let mut command = Command::new(coracle);
    command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(bundle).arg("hello").stdin(Stdio::null());
    crate::succeed(&mut command, "coracle run")?;
    Ok(())
}
