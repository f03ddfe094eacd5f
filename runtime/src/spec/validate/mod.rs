//! Checks a whole configuration and reports every problem with the path of its property, in runc's words.
//!
//! A problem is what runc refuses. What runc accepts although it has no effect, or although the specification forbids it,
//! is a warning. Rules that need the host get it as [`Facts`]; those that look at files run only on real hosts.

mod files;
mod namespaces;
mod process;
mod resources;
mod sysctl;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, LinuxNamespaceType, Process, Spec};

use super::Error;
use crate::plan::Problem;

/// What the rules need to know of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The runtime's user is not root of its user namespace.
    pub rootless_euid: bool,
    /// Errors of permission on cgroups are forgiven.
    pub rootless_cgroups: bool,
    pub selinux: bool,
    pub cgroup_unified: bool,
    /// A resctrl file system is mounted.
    pub resctrl: bool,
    /// Whether to look at files: the root file system, the namespaces to join.
    pub look: bool,
}

impl Facts {
    /// A root host on cgroup v2 whose files are not looked at, for tests.
    #[must_use]
    pub fn example() -> Self {
        Self {
            bundle: "/bundle".into(),
            rootless_euid: false,
            rootless_cgroups: false,
            selinux: false,
            cgroup_unified: true,
            resctrl: false,
            look: false,
        }
    }

    /// Reads them.
    #[must_use]
    pub fn gather(bundle: &Path, rootless_cgroups: bool) -> Self {
        Self {
            bundle: bundle.to_owned(),
            rootless_euid: !rustix::process::geteuid().is_root(),
            rootless_cgroups,
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            cgroup_unified: is_unified(),
            resctrl: Path::new("/sys/fs/resctrl/schemata").exists(),
            look: true,
        }
    }
}

/// Whether `/sys/fs/cgroup` is a cgroup2 file system.
#[must_use]
pub fn is_unified() -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup")
        .is_ok_and(|fs| u64::try_from(fs.f_type).ok() == Some(CGROUP2_SUPER_MAGIC))
}

/// What is wrong with a configuration, and what is only odd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Adds warnings that came up earlier.
    #[must_use]
    pub fn with(mut self, mut earlier: Vec<Problem>) -> Self {
        earlier.append(&mut self.warnings);
        self.warnings = earlier;
        self
    }

    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(field, message));
    }

    fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem::new(field, message));
    }
}

/// Checks everything.
#[must_use]
pub fn validate(spec: &Spec, facts: &Facts) -> Report {
    let mut report = Report::default();
    version(spec, &mut report);
    root(spec, &mut report);
    match spec.process() {
        Some(process) => process::check(process, facts.selinux, &mut report),
        None => report.problem("process", "process property must not be empty"),
    }
    namespaces::check(spec, facts, &mut report);
    sysctl::check(spec, facts, &mut report);
    resources::check(spec, facts, &mut report);
    mounts(spec, facts, &mut report);
    hooks(spec, &mut report);
    odd(spec, &mut report);
    if facts.look {
        files::check(spec, facts, &mut report);
    }
    report
}

/// Checks the process of an `exec`.
pub fn validate_process(process: &Process) -> Result<(), Error> {
    let mut report = Report::default();
    let selinux = !process.selinux_label().as_deref().unwrap_or_default().is_empty()
        && Path::new("/sys/fs/selinux/enforce").exists();
    process::check(process, selinux, &mut report);
    if report.problems.is_empty() { Ok(()) } else { Err(Error::Invalid(report.problems)) }
}

/// The path of the namespace of a kind: `None` without such a namespace, empty for a new one.
fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> Option<PathBuf> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    list.iter().find(|ns| ns.typ() == kind).map(|ns| ns.path().clone().unwrap_or_default())
}

/// The configuration's word for a kind (the crate's own text is the kernel's: `mnt`, `net`).
const fn word(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

/// runc does not look at the version.
fn version(spec: &Spec, report: &mut Report) {
    let version = spec.version();
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let well_formed = numbers.split('.').count() == 3 && numbers.split('.').all(|n| n.parse::<u32>().is_ok());
    if !well_formed {
        report.warning("ociVersion", format!("{version:?} is not a semantic version"));
    } else if !version.starts_with("1.") {
        report.warning("ociVersion", format!("{version} is not supported, reading it as 1.x"));
    }
}

fn root(spec: &Spec, report: &mut Report) {
    match spec.root() {
        None => report.problem("root", "root must be specified"),
        Some(root) if root.path().as_os_str().is_empty() => {
            report.warning("root.path", "is empty: the bundle itself is the root file system");
        }
        Some(_) => {}
    }
}

fn mounts(spec: &Spec, facts: &Facts, report: &mut Report) {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{index}]");
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            report.problem(format!("{field}.destination"), "mount destination must not be empty");
        } else if !destination.is_absolute() {
            let text = format!(
                "mount destination {} is not absolute. Support for non-absolute mount destinations will be removed in a future release.",
                destination.display()
            );
            report.warning(format!("{field}.destination"), text);
        }
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind =
            options.iter().any(|o| o == "bind" || o == "rbind") || mount.typ().as_deref() == Some("bind");
        let (uids, gids) = (mount.uid_mappings().is_some(), mount.gid_mappings().is_some());
        if uids != gids {
            report.problem(field, "id-mapped mounts must have both uid and gid mappings specified");
        } else if uids && !is_bind {
            report.problem(field, "id-mapped mounts are only supported for bind-mounts");
        } else if uids && facts.rootless_euid {
            report.problem(field, "id-mapped mounts are not supported for rootless containers");
        }
    }
}

/// The specification wants absolute paths, runc starts what there is; a timeout of 0 has always passed before the hook ends.
fn hooks(spec: &Spec, report: &mut Report) {
    let Some(hooks) = spec.hooks() else { return };
    #[allow(deprecated)]
    let stages: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (stage, list) in stages {
        for (index, hook) in list.iter().flatten().enumerate() {
            let field = format!("hooks.{stage}[{index}]");
            if hook.path().as_os_str().is_empty() {
                report.problem(format!("{field}.path"), "hook path must not be empty");
            } else if !hook.path().is_absolute() {
                report.warning(format!("{field}.path"), "hook path is not absolute");
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                report.problem(format!("{field}.timeout"), "timeout must be greater than zero");
            }
        }
    }
}

/// What has no effect.
fn odd(spec: &Spec, report: &mut Report) {
    if spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        report.warning("annotations", "empty key");
    }
    let flags = spec.linux().as_ref().and_then(|l| l.personality().as_ref()).and_then(|p| p.flags().as_ref());
    if flags.is_some_and(|flags| !flags.is_empty()) {
        report.warning("linux.personality.flags", "ignoring unsupported personality flags");
    }
}

#[cfg(test)]
mod tests;
