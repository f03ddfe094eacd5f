//! The images that pods and the quick start use: nginx from Debian's packages really serves, pulled or imported.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle_integration::images::Registry;
use coracle_integration::{privilege, require_root, wait, web_image};

fn coraclectl() -> PathBuf {
    std::env::var_os("CORACLECTL").map_or_else(|| "../target/debug/coraclectl".into(), PathBuf::from)
}

fn missing() -> bool {
    let programs = ["docker-registry", "skopeo", "busybox", "apt-get", "dpkg-deb", "zstd", "ip"];
    let missing = programs.into_iter().find(|name| privilege::program(name).is_none());
    if let Some(name) = missing {
        privilege::record_skip(&privilege::test_name(), &format!("needs {name}"));
    }
    missing.is_some()
}

fn debs() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("web-image-debs")
}

fn ctl(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(coraclectl());
    command.arg("--root").arg(root).args(arguments).stdin(Stdio::null());
    command
}

fn succeeds(root: &Path, arguments: &[&str]) -> String {
    let output = ctl(root, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The status line and the body of `GET path` from this thread's network namespace.
fn get(path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect("127.0.0.1:80")?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

/// Ends a command of ours, however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nginx_of_debian_packages_serves_after_a_pull() {
    require_root!();
    if missing() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let registry = Registry::start(work.path()).unwrap();
    let layout = web_image::nginx(work.path(), &debs()).unwrap();
    let image = registry.push_layout(&layout, "nginx").unwrap();
    let root = work.path().join("store");
    succeeds(&root, &["pull", &image]);
    let inspected = succeeds(&root, &["inspect", &image]);
    for expected in ["80/tcp", "SIGQUIT", "daemon off;"] {
        assert!(inspected.contains(expected), "{expected} is not in {inspected}");
    }
    // A thread in a network namespace of its own: its children are there too, and it goes with them.
    let served = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let output = work.path().join("output");
        let mut command = ctl(&root, &["run", "--tty", "no", "--net", "host", &image]);
        command.stdout(std::fs::File::create(&output).unwrap()).stderr(Stdio::inherit());
        let mut running = Running(command.spawn().unwrap());
        let answer = wait::for_some(wait::PATIENCE, || get("/").ok()).expect("nginx answers");
        assert_eq!(answer, ("HTTP/1.1 200 OK".to_owned(), web_image::PAGE.to_owned()));
        assert_eq!(get("/nothing").unwrap().0, "HTTP/1.1 404 Not Found");
        let logged = || std::fs::read_to_string(&output).unwrap_or_default();
        assert!(wait::until(wait::PATIENCE, || logged().contains("\"GET / HTTP/1.0\" 200")), "{}", logged());
        let pid = rustix::process::Pid::from_raw(running.0.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = wait::for_some(wait::PATIENCE, || running.0.try_wait().unwrap()).expect("nginx ends");
        assert!(ended.success(), "{ended}");
        assert!(get("/").is_err());
        assert_eq!(std::fs::read_dir(root.join("containers")).unwrap().count(), 0);
    });
    served.join().unwrap();
}

#[test]
fn the_client_is_imported_from_its_layout_and_has_the_usual_commands() {
    require_root!();
    if missing() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let layout = web_image::client(work.path()).unwrap();
    let root = work.path().join("store");
    succeeds(&root, &["import", "--name", "client:1", layout.to_str().unwrap()]);
    let script = "cat /etc/release; wget --help 2>&1 | head -1 | cut -c1-7; echo x | nc -w1 127.0.0.1 9 || echo refused";
    let told = succeeds(&root, &["run", "--tty", "no", "--pull", "never", "client:1", "sh", "-c", script]);
    assert_eq!(told, "client 1\nBusyBox\nrefused\n");
}
