//! A monitor with real containers, made by the runtime named in `CORACLE_TEST_RUNTIME` (runc unless set).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use coracle_monitor::client::{self, Client, Error};
use coracle_monitor::exits;
use coracle_monitor::protocol::{Create, Exec, Exit, Reply, Request, VERSION};
use serde_json::json;

const LONG: Duration = Duration::from_secs(30);

fn skip(name: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !Path::new("/bin/busybox").exists()
        || Command::new(runtime()).arg("--version").output().is_err()
    {
        "needs busybox-static and runc"
    } else {
        return false;
    };
    eprintln!("SKIP {name}: {reason}");
    if let Ok(file) = std::env::var("CORACLE_SKIPS") {
        let mut file = File::options().append(true).create(true).open(file).expect("skip list");
        writeln!(file, "SKIP {name}: {reason}").expect("skip list");
    }
    true
}

fn runtime() -> PathBuf {
    std::env::var_os("CORACLE_TEST_RUNTIME").map_or_else(|| "/usr/sbin/runc".into(), PathBuf::from)
}

/// Beside the directory of the test programs. (`CARGO_BIN_EXE_coracle-monitor` is no name that a shell passes on, and
/// the linker's wrapper is a shell script.)
fn monitor_binary() -> PathBuf {
    let test = std::env::current_exe().expect("path of this test");
    test.parent().and_then(Path::parent).expect("target directory").join("coracle-monitor")
}

struct Pod {
    directory: tempfile::TempDir,
    client: Client,
    ids: Vec<String>,
}

impl Pod {
    fn new() -> Self {
        Self::with(tempfile::tempdir().expect("tempdir"), &runtime())
    }

    fn with(directory: tempfile::TempDir, runtime: &Path) -> Self {
        client::spawn(&monitor_binary(), directory.path(), runtime).expect("monitor");
        Self { client: Client::new(directory.path()), directory, ids: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a container that runs `script` in a busybox shell; the bundle may be changed before.
    fn create(&mut self, name: &str, script: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
        let id = format!("cmt-{name}-{}", std::process::id());
        let bundle = self.path(&format!("bundle-{name}"));
        write_bundle(&bundle, script, change);
        let create = Create {
            id: id.clone(),
            bundle,
            runtime_root: self.path("runtime"),
            systemd: false,
            stdin: true,
            stdin_once: true,
            log_path: Some(self.path(&format!("{name}.log"))),
            deadline_ms: 30_000,
        };
        self.ids.push(id.clone());
        let reply = self.client.request(&Request::Create(create), LONG).expect("create");
        assert!(matches!(reply, Reply::Started { pid } if pid > 0), "{reply:?}");
        id
    }

    fn start(&self, id: &str) {
        self.client.request(&Request::Start { id: id.into() }, LONG).expect("start");
    }

    fn wait(&self, id: &str) -> Exit {
        match self.client.request(&Request::Wait { id: id.into() }, LONG) {
            Ok(Reply::Exited(exit)) => exit,
            other => panic!("wait: {other:?}"),
        }
    }

    fn log(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).expect("log");
        text.lines().map(|l| l.split_once(' ').expect("time").1.to_owned()).collect()
    }

    /// Runs a command; its stdout, and how it ended.
    fn exec(&self, id: &str, args: &[&str], timeout_ms: u64) -> (String, Exit) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let null = File::open("/dev/null").expect("null");
        let exec = Exec {
            id: id.into(),
            args: args.iter().map(ToString::to_string).collect(),
            env: vec!["ADDED=by the request".into()],
            tty: false,
            deadline_ms: 30_000,
            timeout_ms,
        };
        let descriptors = [null.as_fd(), write.as_fd(), write.as_fd()];
        let pending = self.client.send(&Request::Exec(exec), &descriptors).expect("exec");
        let (started, _) = pending.next(Some(LONG)).expect("started");
        assert!(matches!(started, Reply::Started { .. }), "{started:?}");
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("output");
        match pending.next(Some(LONG)).expect("exited").0 {
            Reply::Exited(exit) => (text, exit),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for id in &self.ids {
            let kill = Request::Signal { id: id.clone(), signal: 9, all: false };
            let _ = self.client.request(&kill, LONG);
            let _ = self.client.request(&Request::Wait { id: id.clone() }, LONG);
            let _ = self.client.request(&Request::Delete { id: id.clone() }, LONG);
        }
        let Ok(Reply::Hello { pid, .. }) = self.client.request(&Request::Hello { version: VERSION }, LONG)
        else {
            return;
        };
        let pid = rustix::process::Pid::from_raw(pid).expect("pid");
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd");
        if self.client.request(&Request::Shutdown, LONG).is_err() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
        let mut list = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut list, Some(&limit));
    }
}

fn write_bundle(bundle: &Path, script: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).expect("rootfs");
    for dir in ["proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(dir)).expect("rootfs");
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox");
    for applet in ["sh", "cat", "echo", "sleep", "yes", "head", "stty", "true", "kill"] {
        let _ = std::os::unix::fs::symlink("busybox", bin.join(applet));
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]},
    });
    change(&mut config);
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("config");
}

#[test]
fn a_container_runs_logs_and_leaves_its_exit_on_disk() {
    if skip("a_container_runs_logs_and_leaves_its_exit_on_disk") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("run", "echo out; echo err >&2; printf unfinished; exit 3", |_| ());
    pod.start(&id);
    let exit = pod.wait(&id);
    assert_eq!((exit.code, exit.oom), (3, false));
    let mut log = pod.log("run");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout F unfinished"]);
    assert_eq!(exits::load(pod.directory.path(), &id), Some(exit));
    pod.client.request(&Request::Delete { id: id.clone() }, LONG).expect("delete");
    assert_eq!(exits::load(pod.directory.path(), &id), None);
    assert!(matches!(
        pod.client.request(&Request::Start { id }, LONG),
        Err(Error::Failed { kind, .. }) if kind == "NotFound"
    ));
}

#[test]
fn exec_brings_output_and_exit_code() {
    if skip("exec_brings_output_and_exit_code") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("exec", "sleep 1000", |_| ());
    pod.start(&id);
    let (text, exit) = pod.exec(&id, &["sh", "-c", "echo hello $ADDED; exit 7"], 0);
    assert_eq!((text.as_str(), exit.code), ("hello by the request\n", 7));
    let (text, exit) = pod.exec(&id, &["head", "-c", "3000000", "/dev/zero"], 0);
    assert_eq!((text.len(), exit.code), (3_000_000, 0));
    let before = Instant::now();
    let (_, exit) = pod.exec(&id, &["sleep", "100"], 300);
    assert!(exit.timed_out && exit.code == 137 && before.elapsed() < Duration::from_secs(20), "{exit:?}");
    let missing = Exec {
        id: id.clone(),
        args: vec!["/no/such".into()],
        env: vec![],
        tty: false,
        deadline_ms: 30_000,
        timeout_ms: 0,
    };
    let null = File::open("/dev/null").expect("null");
    let null = [null.as_fd(); 3];
    let error = pod.client.call(&Request::Exec(missing), &null, LONG).expect_err("no such program");
    assert!(error.to_string().contains("no such file"), "{error}");
}

/// What an exec leaves in the background, in its session or out of it, ends at its deadline: the pipe has no writer left.
#[test]
fn a_deadline_ends_what_an_exec_has_started() {
    if skip("a_deadline_ends_what_an_exec_has_started") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("tree", "sleep 1000", |_| ());
    pod.start(&id);
    let before = Instant::now();
    let script = "echo up; (sleep 900 & sleep 901) & busybox setsid sleep 902 & sleep 903";
    let (text, exit) = pod.exec(&id, &["sh", "-c", script], 500);
    assert_eq!((text.as_str(), exit.timed_out), ("up\n", true));
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
}

#[test]
fn signals_end_a_container() {
    if skip("signals_end_a_container") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("kill", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done", |_| ());
    pod.start(&id);
    let deadline = Instant::now() + LONG;
    while pod.log("kill").is_empty() {
        assert!(Instant::now() < deadline, "the container never wrote");
        std::thread::yield_now();
    }
    pod.client.request(&Request::Signal { id: id.clone(), signal: 15, all: false }, LONG).expect("TERM");
    assert_eq!(pod.wait(&id).code, 5);
    // A signal after the end is no error: stop is repeated by callers.
    pod.client.request(&Request::Signal { id, signal: 9, all: false }, LONG).expect("KILL");
}

#[test]
fn a_created_container_can_be_removed_unstarted() {
    if skip("a_created_container_can_be_removed_unstarted") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("unstarted", "true", |_| ());
    let refused = pod.client.request(&Request::Shutdown, LONG).expect_err("alive");
    assert!(refused.to_string().contains("alive"));
    pod.client.request(&Request::Delete { id: id.clone() }, LONG).expect("delete");
    assert_eq!(pod.client.request(&Request::List, LONG).expect("list"), Reply::List { containers: vec![] });
}

#[test]
fn a_failed_creation_tells_the_runtimes_words() {
    if skip("a_failed_creation_tells_the_runtimes_words") {
        return;
    }
    let pod = Pod::new();
    let bundle = pod.path("bad");
    write_bundle(&bundle, "true", |c| c["process"]["cwd"] = json!("relative"));
    let create = Create {
        id: format!("cmt-bad-{}", std::process::id()),
        bundle,
        runtime_root: pod.path("runtime"),
        systemd: false,
        stdin: false,
        stdin_once: false,
        log_path: None,
        deadline_ms: 30_000,
    };
    let error = pod.client.request(&Request::Create(create), LONG).expect_err("invalid");
    assert!(error.to_string().to_lowercase().contains("cwd"), "{error}");
}

/// A runtime that hangs (a source that never answers) is killed at the deadline, not only the worker that waits for it, and
/// asked to remove what it has made.
#[test]
fn a_runtime_that_hangs_is_killed_and_cleaned_up_after() {
    let directory = tempfile::tempdir().expect("tempdir");
    let hangs = directory.path().join("hangs");
    let script = "#!/bin/sh\ncase \"$*\" in *create*) echo $$ > $0.pid; exec sleep 1000;; *delete*) echo > $0.deleted;; esac\n";
    std::fs::write(&hangs, script).expect("script");
    std::fs::set_permissions(&hangs, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let pod = Pod::with(directory, &hangs);
    let mode = std::fs::metadata(pod.directory.path()).expect("directory").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    let bundle = pod.path("bundle");
    write_bundle(&bundle, "true", |_| ());
    let create = Create {
        id: "hangs".into(),
        bundle,
        runtime_root: pod.path("runtime"),
        systemd: false,
        stdin: false,
        stdin_once: false,
        log_path: None,
        deadline_ms: 500,
    };
    let error = pod.client.request(&Request::Create(create), LONG).expect_err("hangs");
    assert!(error.to_string().contains("in time"), "{error}");
    assert!(pod.path("hangs.deleted").exists());
    let pid = std::fs::read_to_string(pod.path("hangs.pid")).expect("pid");
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("pid")).expect("pid");
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        let mut list = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut list, Some(&limit)).expect("poll"), 1, "the runtime lives on");
    }
}

#[test]
fn an_attached_client_talks_to_the_container() {
    if skip("an_attached_client_talks_to_the_container") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("attach", "cat; echo end", |_| ());
    let (in_read, in_write) = rustix::pipe::pipe().expect("pipe");
    let (out_read, out_write) = rustix::pipe::pipe().expect("pipe");
    let descriptors = [in_read.as_fd(), out_write.as_fd(), out_write.as_fd()];
    pod.client.call(&Request::Attach { id: id.clone(), stdin: true }, &descriptors, LONG).expect("attach");
    pod.start(&id);
    drop((in_read, out_write));
    File::from(in_write).write_all(b"typed\n").expect("type");
    let mut text = String::new();
    File::from(out_read).read_to_string(&mut text).expect("output");
    assert_eq!(text, "typed\nend\n");
    assert_eq!(pod.wait(&id).code, 0);
    assert_eq!(pod.log("attach"), ["stdout F typed", "stdout F end"]);
}

/// More is typed than a pipe holds before the container reads, and its answer is read only when it has ended.
#[test]
fn an_attached_client_loses_nothing_on_a_slow_way() {
    if skip("an_attached_client_loses_nothing_on_a_slow_way") {
        return;
    }
    const SIZE: usize = 700_000;
    let mut pod = Pod::new();
    let id = pod.create("slow", "cat", |_| ());
    let (in_read, in_write) = rustix::pipe::pipe().expect("pipe");
    let (out_read, out_write) = rustix::pipe::pipe().expect("pipe");
    let descriptors = [in_read.as_fd(), out_write.as_fd(), out_write.as_fd()];
    pod.client.call(&Request::Attach { id: id.clone(), stdin: true }, &descriptors, LONG).expect("attach");
    drop((in_read, out_write));
    let typed: Vec<u8> =
        (0..SIZE).map(|n| if n % 80 == 79 { b'\n' } else { b'a' + (n % 26) as u8 }).collect();
    let expected = typed.clone();
    let typist = std::thread::spawn(move || File::from(in_write).write_all(&typed).expect("type"));
    pod.start(&id);
    typist.join().expect("typist");
    assert_eq!(pod.wait(&id).code, 0);
    let mut seen = Vec::new();
    File::from(out_read).read_to_end(&mut seen).expect("output");
    assert_eq!(seen.len(), SIZE);
    assert!(seen == expected, "the bytes differ");
}

/// Each daemon asks to wait, and its connection goes with it: a long-lived container must not collect them.
#[test]
fn who_has_hung_up_is_forgotten() {
    if skip("who_has_hung_up_is_forgotten") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("patient", "sleep 600", |_| ());
    pod.start(&id);
    let Ok(Reply::Hello { pid, .. }) = pod.client.request(&Request::Hello { version: VERSION }, LONG) else {
        panic!("no hello")
    };
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    let ask = || {
        drop(pod.client.send(&Request::Wait { id: id.clone() }, &[]).expect("wait"));
        let (_, out) = rustix::pipe::pipe().expect("pipe");
        let descriptors = [out.as_fd(), out.as_fd(), out.as_fd()];
        let attach = Request::Attach { id: id.clone(), stdin: false };
        pod.client.call(&attach, &descriptors, LONG).expect("attach");
    };
    ask();
    let before = open();
    (0..20).for_each(|_| ask());
    assert!(open() <= before + 4, "{before} descriptors became {}", open());
}

#[test]
fn a_terminal_is_resized() {
    if skip("a_terminal_is_resized") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("tty", "stty size", |c| c["process"]["terminal"] = json!(true));
    pod.client.request(&Request::Resize { id: id.clone(), width: 91, height: 33 }, LONG).expect("resize");
    pod.start(&id);
    assert_eq!(pod.wait(&id).code, 0);
    assert_eq!(pod.log("tty"), ["stdout F 33 91"]);
}

#[test]
fn a_grandchild_that_holds_the_streams_delays_the_exit_by_a_second_at_most() {
    if skip("a_grandchild_that_holds_the_streams_delays_the_exit_by_a_second_at_most") {
        return;
    }
    let mut pod = Pod::new();
    let id = pod.create("hold", "exec sleep 1000", |_| ());
    pod.start(&id);
    // A process outside of the container's pid namespace keeps the pipe: an exec that inherited nothing would not, so
    // the pipe is held by a descriptor of the test, taken through /proc.
    let Ok(Reply::List { containers }) = pod.client.request(&Request::List, LONG) else { panic!("list") };
    let held: OwnedFd =
        File::options().write(true).open(format!("/proc/{}/fd/1", containers[0].pid)).expect("hold").into();
    pod.client.request(&Request::Signal { id: id.clone(), signal: 9, all: false }, LONG).expect("kill");
    let before = Instant::now();
    assert_eq!(pod.wait(&id).code, 137);
    assert!(before.elapsed() < Duration::from_secs(10));
    drop(held);
}
