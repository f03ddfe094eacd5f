//! `cargo xtask quickstart`: a first container, with what is there.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::build;

/// Builds the programs and runs a busybox bundle with `coracle`.
pub fn run(root: &Path) -> Result<(), String> {
    crate::succeed(crate::cargo(root).args(["build", "-p", "coracle-runtime", "--bins"]), "cargo build")?;
    let coracle = build::target_dir(root)?.join("debug/coracle");
    let bundle = std::env::temp_dir().join(format!("coracle-quickstart-{}", std::process::id()));
    println!("making a bundle of busybox in {}", bundle.display());
    let outcome = make_bundle(&coracle, &bundle).and_then(|()| run_bundle(&coracle, &bundle));
    std::fs::remove_dir_all(&bundle).map_err(|error| format!("{}: {error}", bundle.display()))?;
    outcome
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
    println!("that was a container. Next: README.md, \"Ten minutes\"");
    Ok(())
}
