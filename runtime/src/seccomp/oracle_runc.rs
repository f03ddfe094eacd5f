//! The filter that the installed runc really loads (PTRACE_SECCOMP_GET_FILTER), and our filter in this kernel.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::{Arch, LinuxSeccomp};
use serde_json::{Value, json};

use super::interpreter::{self, Call};
use super::oracle;
use super::{Host, compile};

/// A container of runc that is deleted at the end.
struct Container<'d> {
    dir: &'d Path,
    id: String,
}

impl Container<'_> {
    fn runc(dir: &Path) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(dir.join("state")).stdin(Stdio::null()).stderr(Stdio::inherit());
        runc
    }

    /// Runs `sleep` under `profile`.
    fn run<'d>(dir: &'d Path, profile: &LinuxSeccomp) -> Container<'d> {
        let rootfs = dir.join("rootfs/bin");
        fs::create_dir_all(&rootfs).unwrap();
        fs::copy("/bin/busybox", rootfs.join("busybox")).unwrap();
        assert!(Self::runc(dir).args(["spec", "--bundle"]).arg(dir).status().unwrap().success());
        let config = dir.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["args"] =
            json!(["/bin/busybox", "sh", "-c", "echo ready; exec /bin/busybox sleep 60"]);
        spec["process"]["terminal"] = json!(false);
        spec["linux"]["seccomp"] = serde_json::to_value(profile).unwrap();
        fs::write(&config, serde_json::to_vec(&spec).unwrap()).unwrap();
        let id = format!("seccomp-oracle-{}", std::process::id());
        let container = Container { dir, id };
        let mut run = Self::runc(dir);
        run.args(["run", "-d", "--bundle"]).arg(dir).arg(&container.id).stdout(Stdio::piped());
        let mut run = run.spawn().unwrap();
        // Traced before its execve the process would be lost: another thread of runc's becomes the leader.
        let mut ready = String::new();
        BufReader::new(run.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(run.wait().unwrap().success());
        assert_eq!(ready, "ready\n");
        container
    }

    fn pid(&self) -> String {
        let output = Self::runc(self.dir).args(["state", &self.id]).output().unwrap();
        let state: Value = serde_json::from_slice(&output.stdout).unwrap();
        state["pid"].to_string()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = Self::runc(self.dir).args(["delete", "-f", &self.id]).status();
    }
}

fn why_not() -> Option<&'static str> {
    if let Err(reason) = oracle::helper() {
        return Some(reason);
    }
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    if Command::new("runc").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Some("no runc");
    }
    (!Path::new("/bin/busybox").exists()).then_some("no static busybox")
}

#[test]
#[cfg(target_arch = "x86_64")]
fn agrees_with_the_filter_that_runc_installs() {
    if let Some(reason) = why_not() {
        return oracle::skip("seccomp::oracle_runc::agrees_with_the_filter_that_runc_installs", reason);
    }
    let Some(mut profile) = oracle::default_profile(Arch::ScmpArchX86_64, "x86_64") else {
        return oracle::skip(
            "seccomp::oracle_runc::agrees_with_the_filter_that_runc_installs",
            "no podman profile",
        );
    };
    // EPERM as default, so that runc puts its stub in front.
    profile.set_default_errno_ret(Some(1));
    let dir = tempfile::tempdir().unwrap();
    let container = Container::run(dir.path(), &profile);
    let theirs = oracle::decode(&oracle::ask(&["installed", &container.pid()], "").unwrap(), false);
    drop(container);

    let names: Vec<&str> = super::syscalls::SYSCALLS.iter().map(|row| row.0).collect();
    let unknown = oracle::numbers("x86_64", &names).into_iter().filter(|(_, number)| *number == -1);
    let unknown: Vec<String> = unknown.map(|(name, _)| name).collect();
    let mut value = serde_json::to_value(&profile).unwrap();
    for rule in value["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| !unknown.iter().any(|unknown| name == unknown));
    }
    let ours = compile(&serde_json::from_value(value).unwrap(), &Host::current()).unwrap();
    let mut asked = 0;
    for arch in [0xc000_003e, 0x4000_0003, 0xc000_00b7] {
        for nr in (0..600).chain((1 << 30)..(1 << 30) + 600) {
            for first in [0, 1, 2, 8, 9, 16, 0x2_0000, 0x2_0008, 0xffff_ffff, 1 << 32] {
                for third in [0, 9] {
                    let call = Call { nr, arch, args: [first, 0, third, 0, 0, 0], big_endian: false };
                    let (our, their) =
                        (interpreter::run(&ours.program, &call), interpreter::run(&theirs, &call));
                    assert_eq!(our, their, "{call:?}");
                    asked += 1;
                }
            }
        }
    }
    println!("{asked} calls agree; {} instructions, runc {}", ours.program.len(), theirs.len());
}

/// The kernel takes our programs, and answers as the profile says: `mkdir` fails in a thread that loaded one.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_takes_and_obeys_it() {
    let profile: LinuxSeccomp = serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 111 },
            { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
              "args": [{ "index": 1, "value": 77, "op": "SCMP_CMP_GE" }] }] }))
    .unwrap();
    let filter = compile(&profile, &Host::current()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    let made = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        assert!(filter.load().unwrap().is_none());
        let far = rustix::process::Pid::from_raw(77);
        let near = rustix::process::getpriority_process(None);
        (fs::create_dir(path), near, rustix::process::getpriority_process(far))
    });
    let (made, near, far) = made.join().unwrap();
    assert_eq!(made.unwrap_err().raw_os_error(), Some(111));
    assert!(near.is_ok());
    assert_eq!(far.unwrap_err(), rustix::io::Errno::OPNOTSUPP);
}

/// A profile that notifies gives its listener.
#[test]
fn a_notifying_filter_gives_a_listener() {
    let profile: LinuxSeccomp = serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{ "names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY" }] }))
    .unwrap();
    let filter = compile(&profile, &Host::current()).unwrap();
    let listener = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        filter.load().map(|listener| listener.is_some())
    });
    match listener.join().unwrap() {
        Ok(given) => assert!(given),
        // Under a supervisor with a listener of its own the kernel gives no second.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EBUSY)),
    }
}

/// `cargo test --release -p coracle-runtime --lib measure -- --ignored --nocapture` prints what docs/seccomp.md says.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let profile = oracle::default_profile(Arch::ScmpArchX86_64, "x86_64").unwrap();
    let host = Host::current();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let best = |what: &dyn Fn()| {
        let times = (0..200).map(|_| {
            let start = std::time::Instant::now();
            what();
            start.elapsed()
        });
        times.min().unwrap()
    };
    let filter = compile(&profile, &host).unwrap();
    println!(
        "{} instructions, compile {:?}",
        filter.program.len(),
        best(&|| drop(compile(&profile, &host).unwrap()))
    );
    println!("cached {:?}", best(&|| drop(super::compile_cached(&profile, &host, &cache).unwrap())));
    let runc = oracle::Runc::new(&profile, &host).unwrap();
    let input = oracle::text(&profile, &runc.abis);
    let libseccomp = best(&|| drop(oracle::ask(&["filter"], &input).unwrap()));
    let process = best(&|| drop(oracle::ask(&["numbers", "x86_64"], "").unwrap()));
    println!("libseccomp {} instructions, {libseccomp:?} in a process of {process:?}", runc.program.len());
    for (name, program) in [("ours", &filter.program), ("libseccomp", &runc.program)] {
        let path = dir.path().join(name);
        fs::write(&path, oracle::encode(program)).unwrap();
        for _ in 0..3 {
            let cost =
                String::from_utf8(oracle::ask(&["cost", path.to_str().unwrap()], "").unwrap()).unwrap();
            print!("{name}: getppid, personality ns {cost}");
        }
    }
    print!("no filter: {}", String::from_utf8(oracle::ask(&["cost"], "").unwrap()).unwrap());
}
