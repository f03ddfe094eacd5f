//! The first process of a pod's shared PID namespace: it reaps, and does nothing else.
//!
//! Containers of the pod see it as process 1. It is executed from a sealed copy of this program (a forked one would carry
//! the host's root in `/proc/1/root` and the monitor's memory), in an empty read-only root, as nobody, without
//! capabilities, not dumpable, behind a filter of a dozen system calls. The one descriptor that it keeps is a pipe: when the
//! monitor is gone, it ends, and with it every process of the namespace.
//!
//! ```text
//! monitor ─fork─▶ worker ─exec─▶ `coracle-monitor pod-init` ─seal, join, clone3(NEWPID|NEWNS)─▶ init
//!                   ◀──────────── pid, once init is behind its filter ────────────────────────┘ the monitor's child
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use coracle_runtime::seccomp::{Filter, Host};
use coracle_runtime::sys::clone::{CloneArgs, clone_child};
use coracle_runtime::sys::{descriptors, namespaces, selfexec};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::thread::CapabilitySet;

/// The verb of the command line.
pub const VERB: &str = "pod-init";

/// Environment variables that name pins begin so, and end with the kind.
const PIN: &str = "CORACLE_PIN_";

/// Whom init runs as: the overflow user, who owns nothing.
const NOBODY: u32 = 65_534;

/// Namespaces in the order in which they are joined: what the user namespace owns comes after it.
const KINDS: [(&str, u64); 4] =
    [("user", 0x1000_0000), ("net", 0x4000_0000), ("ipc", 0x0800_0000), ("uts", 0x0400_0000)];
const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_NEWNS: u64 = 0x0002_0000;

/// All that init calls once it is behind its filter.
const CALLS: [&str; 14] = [
    "poll",
    "ppoll",
    "read",
    "wait4",
    "waitid",
    "write",
    "close",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "sigaltstack",
    "munmap",
    "rt_sigprocmask",
];

/// Runs in a worker of the monitor: executes this program as `pod-init` and returns init's pid. `joined` are pairs of kind
/// and pin; `alive` is the read end of a pipe whose other end only the monitor has.
pub(crate) fn spawn(joined: &[(String, PathBuf)], alive: OwnedFd) -> io::Result<i32> {
    let mut command = Command::new("/proc/self/exe");
    // By environment: a container of the pod sees the arguments, but not the environment of a process that is not dumpable.
    command.arg(VERB).env_clear();
    for (kind, path) in joined {
        command.env(format!("{PIN}{kind}"), path);
    }
    let mut child = command.stdin(alive).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut text, mut complaint) = (String::new(), String::new());
    if let Some(out) = child.stdout.take() {
        out.take(64).read_to_string(&mut text)?;
    }
    if let Some(err) = child.stderr.take() {
        err.take(4096).read_to_string(&mut complaint)?;
    }
    let status = child.wait()?;
    match text.trim().parse() {
        Ok(pid) if status.success() => Ok(pid),
        _ => Err(io::Error::other(format!("pod init: {status}: {}", complaint.trim()))),
    }
}

/// `coracle-monitor pod-init`: stdin is the pipe, stdout is told the pid, the environment names the pins to join.
pub fn main() -> io::Result<()> {
    selfexec::ensure_sealed()?;
    let mut pins = Vec::new();
    for (kind, flag) in KINDS {
        if let Some(path) = std::env::var_os(format!("{PIN}{kind}")) {
            pins.push((kind, flag, File::open(path).map_err(|e| told(kind, &e))?));
        }
    }
    for (kind, flag, file) in &pins {
        namespaces::join(file, *flag).map_err(|e| told(kind, &e))?;
    }
    if pins.iter().any(|(kind, ..)| *kind == "user") {
        become_user(0).map_err(|e| told("root of the user namespace", &e))?;
    }
    drop(pins);
    let filter = filter()?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let args = CloneArgs { flags: CLONE_NEWPID | CLONE_NEWNS, into_cgroup: None };
    let child = clone_child(args, || match enter(&write, &filter) {
        Ok(signals) => reap(&signals, write.as_fd()),
        Err(e) => {
            let _ = rustix::io::write(&write, e.to_string().as_bytes());
            1
        }
    })?;
    drop(write);
    let mut answer = String::new();
    File::from(read).take(4096).read_to_string(&mut answer)?;
    if answer != "+" {
        return Err(io::Error::other(answer));
    }
    println!("{}", child.pid);
    Ok(())
}

/// In the new namespaces: gives everything up.
fn enter(ready: &OwnedFd, filter: &Filter) -> io::Result<SignalFd> {
    let step = |name: &'static str| move |e: io::Error| told(name, &e);
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| step("dumpable")(e.into()))?;
    descriptors::close_all_but(1, &mut vec![ready.as_raw_fd()]).map_err(step("close descriptors"))?;
    empty_root().map_err(step("empty root"))?;
    let _ = rustix::process::setsid();
    rustix::thread::set_name(c"coracle-init").map_err(|e| step("name")(e.into()))?;
    let signals = all_signals().map_err(step("signals"))?;
    drop_bounding().map_err(step("bounding set"))?;
    become_user(NOBODY).map_err(step("ids"))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| step("dumpable")(e.into()))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| step("no_new_privs")(e.into()))?;
    filter.load().map_err(step("seccomp"))?;
    Ok(signals)
}

/// Tells that all is done, then collects children until the monitor is gone.
fn reap(signals: &SignalFd, ready: BorrowedFd<'_>) -> i32 {
    if rustix::io::write(ready, b"+").is_err() || nix::unistd::close(ready.as_raw_fd()).is_err() {
        return 1;
    }
    let monitor = rustix::stdio::stdin();
    loop {
        let mut list =
            [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
        if poll(&mut list, None).is_ok() && !list[1].revents().is_empty() {
            return 0;
        }
        while matches!(signals.read_signal(), Ok(Some(_))) {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
    }
}

fn all_signals() -> io::Result<SignalFd> {
    let mask = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Makes an empty read-only file system the root of this mount namespace and lets go of every other mount.
fn empty_root() -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "4096"), ("nr_inodes", "2"), ("mode", "0555")] {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", rustix::fs::CWD, "/dev", flags)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    drop(root);
    Ok(())
}

fn drop_bounding() -> io::Result<()> {
    for bit in 0..64 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// User, group and groups: an id other than 0 loses every capability with it.
fn become_user(id: u32) -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    let (gid, uid) = (Gid::from_raw(id), Uid::from_raw(id));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn filter() -> io::Result<Filter> {
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{"names": CALLS, "action": "SCMP_ACT_ALLOW"}],
    });
    let profile = serde_json::from_value(profile)?;
    coracle_runtime::seccomp::compile(&profile, &Host::current()).map_err(io::Error::other)
}

fn told(step: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{step}: {error}"))
}
