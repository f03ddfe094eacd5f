//! One container under test: its runtime, id, directory and bundle, removed and checked for leaks at its end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::runtime::{Outcome, Runtime, call};
use crate::{leaks, wait};

/// Owns everything of one container; dropping it removes the container by force.
#[derive(Debug)]
pub struct Container {
    pub runtime: Runtime,
    pub id: String,
    pub bundle: Bundle,
    directory: TempDir,
    finished: bool,
}

impl Container {
    /// A container with the default bundle.
    pub fn new(runtime: &Runtime) -> Self {
        Self::edited(runtime, |_| {})
    }

    /// A container whose bundle `edit` changed; `config.json` is written.
    pub fn edited(runtime: &Runtime, edit: impl FnOnce(&mut Bundle)) -> Self {
        let id = unique_id();
        let directory =
            tempfile::Builder::new().prefix("coracle-it-").tempdir().expect("temporary directory");
        // Processes of a mapped user must be able to walk to the root file system.
        open_to_all(directory.path());
        let path = directory.path().join("bundle");
        std::fs::create_dir(&path).expect("bundle");
        let mut bundle = Bundle::create(&path, &id);
        edit(&mut bundle);
        bundle.save();
        Self { runtime: runtime.clone(), id, bundle, directory, finished: false }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn state_root(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// The runtime's command with this container's state root; arguments follow.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg("--root").arg(self.state_root());
        if leaks::under_systemd() {
            command.arg("--systemd-cgroup");
        }
        command.args(args).current_dir(self.directory());
        command.env("CORACLE_TEST_ID", &self.id);
        command
    }

    pub fn call(&self, args: &[&str]) -> Outcome {
        self.call_command(self.command(args))
    }

    pub fn call_command(&self, command: Command) -> Outcome {
        call(command, self.directory(), wait::PATIENCE)
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Outcome {
        self.run_with(&[])
    }

    pub fn run_with(&self, flags: &[&str]) -> Outcome {
        self.verb_with_bundle("run", flags)
    }

    pub fn create(&self, flags: &[&str]) -> Outcome {
        self.verb_with_bundle("create", flags)
    }

    fn verb_with_bundle(&self, verb: &str, flags: &[&str]) -> Outcome {
        let bundle = self.bundle.path.to_string_lossy().into_owned();
        let mut args = vec![verb, "--bundle", &bundle];
        args.extend(flags);
        args.push(&self.id);
        self.call(&args)
    }

    pub fn start(&self) -> Outcome {
        self.call(&["start", &self.id])
    }

    pub fn kill(&self, signal: &str) -> Outcome {
        self.call(&["kill", &self.id, signal])
    }

    pub fn delete(&self) -> Outcome {
        self.call(&["delete", &self.id])
    }

    pub fn delete_by_force(&self) -> Outcome {
        self.call(&["delete", "--force", &self.id])
    }

    /// `exec` with the command line `args`.
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Outcome {
        let mut all = vec!["exec"];
        all.extend(flags);
        all.push(&self.id);
        all.extend(args);
        self.call(&all)
    }

    /// The answer of `state`.
    #[track_caller]
    pub fn state(&self) -> Value {
        let text = self.call(&["state", &self.id]).expect_success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("state of {}: {error}: {text}", self.id))
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn init_pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().unwrap_or_default();
        i32::try_from(pid).expect("a process id")
    }

    /// Waits until `state` says so.
    #[track_caller]
    pub fn await_status(&self, status: &str) {
        let reached = wait::until(wait::PATIENCE, || self.status() == status);
        assert!(reached, "{} is {} and not {status}", self.id, self.status());
    }

    /// A started container that lives until it is killed.
    pub fn sleeping(runtime: &Runtime, edit: impl FnOnce(&mut Bundle)) -> Self {
        let container = Self::edited(runtime, |bundle| {
            bundle.args(&["/bin/sleep", "600"]);
            edit(bundle);
        });
        container.run_with(&["--detach"]).expect_success();
        container
    }

    /// What is left of it.
    pub fn leaks(&self) -> std::collections::BTreeSet<String> {
        leaks::find(&self.id, self.directory())
    }

    /// Asserts that nothing is left; processes that are just ending get a moment.
    #[track_caller]
    pub fn assert_no_leaks(&self) {
        let clean = wait::until(Duration::from_secs(5), || self.leaks().is_empty());
        assert!(clean, "{} left behind by {}: {:#?}", self.id, self.runtime.name, self.leaks());
    }

    /// Removes the container if it is there and asserts that nothing is left.
    #[track_caller]
    pub fn finish(mut self) {
        self.delete_by_force();
        self.finished = true;
        self.assert_no_leaks();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.finished {
            self.delete_by_force();
        }
    }
}

/// A name no other test, run or process has.
pub fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("it-{:x}-{:x}-{number}", std::process::id(), now.as_millis() & 0xff_ffff)
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("mode of the directory");
}
