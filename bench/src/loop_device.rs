//! An ext4 of one's own on a loop device, which tells how much was written to it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for the largest candidate: blobs and unpacked layers, several times.
const SIZE: u64 = 3 << 30;

/// Mounted; unmounted and detached when dropped.
pub struct Ext4 {
    path: PathBuf,
    device: String,
}

impl Ext4 {
    /// Makes one whose file and mount point are below `work`.
    pub fn make(work: &Path) -> io::Result<Self> {
        let (image, path) = (work.join("ext4.img"), work.join("ext4"));
        std::fs::create_dir(&path)?;
        File::create(&image)?.set_len(SIZE)?;
        // Lazily written tables would count for whoever runs at that moment.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", eager]).arg(&image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let ext4 = Self { path, device };
        run(Command::new("mount").args(["-t", "ext4", &ext4.device]).arg(&ext4.path))?;
        Ok(ext4)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written to the device so far, everything pending included.
    pub fn written(&self) -> io::Result<u64> {
        rustix::fs::syncfs(File::open(&self.path)?)?;
        let name = self.device.trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat"))?;
        // Documentation/block/stat.rst: the seventh field is sectors written, of 512 bytes whatever the device's are.
        let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
        sectors.map(|sectors| sectors * 512).ok_or_else(|| io::Error::other(stat))
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.path));
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
    }
}

/// Runs a command; what it printed, without the end of the line.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{command:?}: {}: {told}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
