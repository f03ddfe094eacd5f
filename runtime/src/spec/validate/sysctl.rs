//! Which kernel parameters a container may set: those of a namespace that is its own (runc's list).

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{Facts, Report, namespace};

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub fn check(spec: &Spec, facts: &Facts, report: &mut Report) {
    let Some(all) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else { return };
    let mut names: Vec<_> = all.keys().collect();
    names.sort();
    for given in names {
        if let Err(text) = allowed(spec, facts, &dotted(given)) {
            report.problem(format!("linux.sysctl.{given}"), text);
        }
    }
}

fn allowed(spec: &Spec, facts: &Facts, name: &str) -> Result<(), String> {
    let own = |kind| namespace(spec, kind).is_some();
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return own(Kind::Ipc)
            .then_some(())
            .ok_or_else(|| format!("sysctl {name:?} is not allowed in the hosts ipc namespace"));
    }
    if name.starts_with("net.") {
        return own_network(spec, facts)
            .then_some(())
            .ok_or_else(|| format!("sysctl {name:?} not allowed in host network namespace"));
    }
    if own(Kind::Uts) && name == "kernel.domainname" {
        return Ok(());
    }
    if own(Kind::Uts) && name == "kernel.hostname" {
        return Err(format!(
            "sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"
        ));
    }
    if name.starts_with("user.") {
        return own(Kind::User)
            .then_some(())
            .ok_or_else(|| format!("setting ucounts without a user namespace not allowed: {name}"));
    }
    Err(format!("sysctl {name:?} is not in a separate kernel namespace"))
}

/// A namespace joined by path may be the one that we are in.
fn own_network(spec: &Spec, facts: &Facts) -> bool {
    match namespace(spec, Kind::Network) {
        None => false,
        Some(path) if path.as_os_str().is_empty() || !facts.look => true,
        Some(path) => match (rustix::fs::stat(&path), rustix::fs::stat("/proc/self/ns/net")) {
            (Ok(theirs), Ok(ours)) => (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino),
            // That the path is missing is reported with the namespace itself.
            _ => true,
        },
    }
}

/// sysctl.d(5): where the first separator is a slash, slashes separate and dots belong to names.
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}
