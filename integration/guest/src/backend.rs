//! The two kinds of machine: how each is started and how each shares a directory.
//!
//! User-mode Linux is a kernel that is a program: system calls cost more, computing costs nothing more. Its build lacks
//! cpuset and hugetlb. QEMU without acceleration runs Debian's own kernel with every controller, ten times slower.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::control::{self, CONSOLE};
use crate::error::{Error, succeed};
use crate::image::Image;

/// Which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    #[default]
    Uml,
    Qemu,
}

impl Backend {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Qemu => "qemu",
        }
    }

    /// By the name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Uml, Self::Qemu].into_iter().find(|backend| backend.name() == name)
    }

    /// The kind of the machine that we run in; the control directory's file system tells.
    pub(crate) fn of_this_guest() -> Result<Self, Error> {
        let table =
            std::fs::read_to_string("/proc/self/mounts").map_err(Error::io("read", "/proc/self/mounts"))?;
        let kind = table.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            (fields.next()? == control::IN_GUEST).then(|| fields.next()).flatten()
        });
        match kind {
            Some("hostfs") => Ok(Self::Uml),
            Some("9p") => Ok(Self::Qemu),
            _ => Err(Error::Missing(format!("{} is not mounted: this is no guest", control::IN_GUEST))),
        }
    }

    /// Mounts the `index`th share at the path that it has on the host. In the guest.
    pub(crate) fn mount_share(self, index: usize, path: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(path).map_err(Error::io("make", path))?;
        let mut mount = Command::new("mount");
        match self {
            Self::Uml => mount.args(["-t", "hostfs", "none", "-o"]).arg(joined("hostfs=", path)),
            Self::Qemu => mount.args(["-t", "9p", "-o", NINE_P]).arg(format!("share{index}")),
        };
        succeed(mount.arg(path)).map(drop)
    }

    /// The command that is the machine: it ends when the guest turns itself off.
    pub(crate) fn command(self, image: &Image, control: &Path, shares: &[PathBuf], memory: u32) -> Command {
        match self {
            Self::Uml => user_mode_linux(image, control, memory),
            Self::Qemu => qemu(image, control, shares, memory),
        }
    }
}

/// `mmap`, because programs are executed from shares.
const NINE_P: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap";

/// The same for both kernels.
const KERNEL: &[&str] = &[
    "rw",
    "rootfstype=ext4",
    "panic=-1",
    "loglevel=4",
    "systemd.show_status=0",
    "systemd.unit=coracle-guest.target",
];

/// A command that dies with us, however we die.
fn bound_to_us(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}

fn user_mode_linux(image: &Image, control: &Path, memory: u32) -> Command {
    let mut disk = joined("ubd0=", &control.join("changes"));
    disk.push(",");
    disk.push(image.disk());
    let mut command = bound_to_us(image.kernel());
    command
        // `seccomp`: system calls of the guest's processes without two ptrace stops each.
        .args(["seccomp=on", "con=null", "con0=null,fd:1", "ssl=null", "root=/dev/ubda"])
        .arg(format!("mem={memory}M"))
        .arg(disk)
        .arg(joined("coracle.control=", control))
        .args(KERNEL)
        .env("TMPDIR", memory_directory(control, memory))
        .env("HOME", control);
    command
}

/// The guest's memory is a file: in the host's memory where that has room (containers have small `/dev/shm`).
fn memory_directory(control: &Path, memory: u32) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(shm).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free >= u64::from(memory) << 20 { shm.to_owned() } else { control.to_owned() }
}

fn qemu(image: &Image, control: &Path, shares: &[PathBuf], memory: u32) -> Command {
    let mut command = bound_to_us("qemu-system-x86_64");
    command
        .args(["-M", "q35,usb=off", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem", "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"])
        .args(["-m", &memory.to_string(), "-serial", "stdio"])
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(image.initrd())
        .arg("-append")
        .arg(format!(
            "console=ttyS0 mitigations=off nokaslr random.trust_cpu=on audit=0 {}",
            KERNEL.join(" ")
        ))
        .arg("-drive")
        .arg(with_options("file=", &image.disk(), ",format=raw,if=virtio,snapshot=on,cache=unsafe"));
    let share = |path: &Path, tag: &str| {
        with_options("local,path=", path, &format!(",mount_tag={tag},security_model=none,multidevs=remap"))
    };
    command.arg("-virtfs").arg(share(control, "control"));
    for (index, path) in shares.iter().enumerate() {
        command.arg("-virtfs").arg(share(path, &format!("share{index}")));
    }
    command
}

fn with_options(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = joined(before, path);
    text.push(after);
    text
}

fn joined(before: &str, path: &Path) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text
}

/// Where the machine's console is kept.
pub(crate) fn console(control: &Path) -> PathBuf {
    control.join(CONSOLE)
}
