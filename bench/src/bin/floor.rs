//! The bare floor: what a container of the default bundle costs when nothing but the kernel's work is done.
//!
//! The same namespaces, mounts, devices, groups and masks as `runc spec`'s configuration asks for, a sealed execution of
//! itself first, one record written and renamed. No configuration is read, nothing is checked, no error is explained. It
//! uses the runtime's kernel boundary (clone, sealing) and none of its logic, so it is the time no runtime gets below.
//!
//! `coracle-floor ROOTFS NAME RECORD`: runs `/bin/true` of the root file system in the group `coracle-test/NAME`.

use std::error::Error;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle_runtime::sys::clone::{CloneArgs, clone_child};
use coracle_runtime::sys::selfexec;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, execve, fchdir, pivot_root, sethostname};

type Done = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Done {
    selfexec::ensure_sealed()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rootfs, name, record] = args.as_slice() else {
        return Err("usage: floor ROOTFS NAME RECORD".into());
    };
    let groups = make_groups(name)?;
    let tasks = open_tasks(&groups)?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    let args = CloneArgs { flags: u64::try_from(flags.bits())?, into_cgroup: None };
    let child = clone_child(args, || {
        let Err(error) = inside(Path::new(rootfs), tasks);
        eprintln!("floor: inside: {error}");
        1
    })?;
    let temporary = format!("{record}.tmp");
    std::fs::write(&temporary, format!("{{\"pid\": {}}}", child.pid))?;
    std::fs::rename(&temporary, record)?;
    waitpid(Pid::from_raw(child.pid), None)?;
    for group in &groups {
        std::fs::remove_dir(group)?;
    }
    std::fs::remove_file(record)?;
    Ok(())
}

fn make_groups(name: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let roots = coracle_integration::leaks::hierarchies();
    let groups: Vec<PathBuf> = roots.iter().map(|root| root.join("coracle-test").join(name)).collect();
    for group in &groups {
        std::fs::create_dir_all(group)?;
        fill_cpuset(group)?;
    }
    Ok(groups)
}

/// A group of version 1 takes no process before it has processors and memory nodes.
fn fill_cpuset(group: &Path) -> Done {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (mine, parent) = (group.join(file), group.join("..").join(file));
        if group.join("cpuset.memory_migrate").exists() {
            let outer = group.join("../..").join(file);
            if std::fs::read_to_string(&parent)?.trim().is_empty() {
                std::fs::write(&parent, std::fs::read(outer)?)?;
            }
            std::fs::write(mine, std::fs::read(&parent)?)?;
        }
    }
    Ok(())
}

fn open_tasks(groups: &[PathBuf]) -> Result<Vec<std::fs::File>, Box<dyn Error>> {
    let mut files = Vec::new();
    for group in groups {
        let name = if group.join("tasks").exists() { "tasks" } else { "cgroup.procs" };
        files.push(std::fs::File::options().write(true).open(group.join(name))?);
    }
    Ok(files)
}

fn inside(rootfs: &Path, tasks: Vec<std::fs::File>) -> Result<std::convert::Infallible, Box<dyn Error>> {
    for mut file in tasks {
        file.write_all(b"0")?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    sethostname("box")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    mount(Some(rootfs), rootfs, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    mount_file_systems(rootfs)?;
    make_devices(&rootfs.join("dev"))?;
    enter(rootfs)?;
    hide()?;
    let program = CString::new("/bin/true")?;
    Ok(execve(&program, &[&program], &[c"PATH=/bin"])?)
}

/// Destination, type, flags and data of the default configuration.
const FILE_SYSTEMS: &[(&str, &str, MsFlags, &str)] = &[
    ("proc", "proc", MsFlags::empty(), ""),
    ("dev", "tmpfs", MsFlags::MS_NOSUID.union(MsFlags::MS_STRICTATIME), "mode=755,size=65536k"),
    (
        "dev/pts",
        "devpts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    ("dev/shm", "tmpfs", NO_ALL, "mode=1777,size=65536k"),
    ("dev/mqueue", "mqueue", NO_ALL, ""),
    ("sys", "sysfs", NO_ALL.union(MsFlags::MS_RDONLY), ""),
    ("sys/fs/cgroup", "tmpfs", NO_ALL, "mode=755"),
];

const NO_ALL: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

fn mount_file_systems(rootfs: &Path) -> Done {
    let hierarchies = coracle_integration::leaks::hierarchies();
    for (destination, kind, flags, data) in FILE_SYSTEMS {
        let target = rootfs.join(destination);
        std::fs::create_dir_all(&target)?;
        mount(Some(*kind), &target, Some(*kind), *flags, Some(*data))?;
    }
    for hierarchy in hierarchies {
        let name = hierarchy.file_name().unwrap_or_default().to_owned();
        let target = rootfs.join("sys/fs/cgroup").join(name);
        std::fs::create_dir(&target)?;
        let own = hierarchy.join("coracle-test");
        mount(Some(&own), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | NO_ALL;
        mount(None::<&str>, &target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

fn make_devices(dev: &Path) -> Done {
    let devices =
        [("null", 1, 3), ("random", 1, 8), ("full", 1, 7), ("tty", 5, 0), ("zero", 1, 5), ("urandom", 1, 9)];
    for (name, major, minor) in devices {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    let links = [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")];
    for (name, target) in links.into_iter().chain([("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")]) {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn enter(rootfs: &Path) -> Done {
    let (old, new) = (std::fs::File::open("/")?, std::fs::File::open(rootfs)?);
    fchdir(&new)?;
    pivot_root(".", ".")?;
    fchdir(&old)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// The paths that the default configuration masks and makes read-only, where they exist.
fn hide() -> Done {
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
    ] {
        if Path::new(path).exists() {
            mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
    }
    for path in ["/proc/acpi", "/sys/firmware", "/proc/scsi"] {
        if Path::new(path).exists() {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)?;
        }
    }
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/"] {
        if Path::new(path).exists() {
            if path != "/" {
                mount(Some(path), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            }
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
        }
    }
    Ok(())
}
