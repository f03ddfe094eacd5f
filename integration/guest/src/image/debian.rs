//! Debian packages: the tree that the machine runs, and single packages of another suite.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, succeed};

/// The guest's release.
pub(super) const SUITE: &str = "trixie";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the machine has beside the minimal system: its init, and what the suites call.
const PACKAGES: &[&str] = &[
    "apparmor",
    "busybox-static",
    "crun",
    "dbus",
    "dbus-user-session",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "nftables",
    "podman",
    "procps",
    "runc",
    "systemd",
    "systemd-sysv",
    "uidmap",
];

/// Unpacks the system into `root`.
pub(super) fn bootstrap(root: &Path) -> Result<(), Error> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Languages \"none\""]);
    command.args(["--aptopt=Acquire::Retries \"3\""]);
    for unread in ["man", "locale", "doc", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(format!("--keyring={KEYRING}")).arg(format!("--include={}", PACKAGES.join(",")));
    succeed(command.arg(SUITE).arg(root).arg(mirror())).map(drop)
}

/// The archive that this machine's apt already uses, so that a mirror is respected.
fn mirror() -> String {
    let format = ["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"];
    let targets = succeed(Command::new("apt-get").args(format)).unwrap_or_default();
    let debian = targets.lines().find_map(|line| line.strip_prefix("Debian Debian "));
    debian
        .map_or_else(|| "http://deb.debian.org/debian".to_owned(), |uri| uri.trim_end_matches('/').to_owned())
}

/// An apt of its own for one suite, which knows nothing of this machine's packages and settings.
pub(super) struct Archive {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Archive {
    /// Reads the suite's lists into `directory`.
    pub(super) fn open(directory: &Path, suite: &str) -> Result<Self, Error> {
        let place = directory.display();
        for path in ["lists/partial", "archives/partial", "parts"] {
            let path = directory.join(path);
            std::fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
        }
        let configuration = directory.join("apt.conf");
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror()
        );
        let settings = format!(
            "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{place}/parts\";\n\
             Dir::State::lists \"{place}/lists\";\nDir::State::status \"{place}/status\";\nDir::Cache \"{place}\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
        );
        for (path, text) in [
            (directory.join("parts/suite.sources"), source),
            (configuration.clone(), settings),
            (directory.join("status"), String::new()),
        ] {
            std::fs::write(&path, text).map_err(Error::io("write", &path))?;
        }
        let archive = Self { directory: directory.to_owned(), configuration };
        succeed(archive.apt("apt-get").args(["update", "-qq"]))?;
        Ok(archive)
    }

    /// The package that `package` depends on and whose name begins with `prefix`.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String, Error> {
        let text = succeed(self.apt("apt-cache").args(["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = names.into_iter().find(|name| name.starts_with(prefix));
        found
            .map(str::to_owned)
            .ok_or_else(|| Error::Missing(format!("{package} depends on no {prefix}* in the archive")))
    }

    /// Downloads a package and unpacks it, without its scripts.
    pub(super) fn unpack(&self, package: &str, to: &Path) -> Result<(), Error> {
        succeed(self.apt("apt-get").args(["download", "-qq", package]).current_dir(&self.directory))?;
        let listing = std::fs::read_dir(&self.directory).map_err(Error::io("read", &self.directory))?;
        let start = format!("{package}_");
        let file = listing
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
            .ok_or_else(|| Error::Missing(format!("{package} was not downloaded")))?;
        succeed(Command::new("dpkg-deb").arg("--extract").arg(file).arg(to)).map(drop)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }
}
