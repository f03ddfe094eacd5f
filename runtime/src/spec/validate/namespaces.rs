//! Rules of `linux.namespaces` and of what needs a namespace of its own.

use std::collections::HashSet;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Spec};

use super::{Facts, Report, namespace, word};

pub fn check(spec: &Spec, facts: &Facts, report: &mut Report) {
    duplicates(spec, report);
    user(spec, facts, report);
    time(spec, report);
    needs(spec, report);
    net_devices(spec, facts, report);
}

fn duplicates(spec: &Spec, report: &mut Report) {
    let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut seen = HashSet::new();
    for (index, ns) in list.into_iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if !seen.insert(word(ns.typ())) {
            report.problem(field, format!("malformed spec file: duplicated ns {:?}", word(ns.typ())));
        } else if ns.path().as_ref().is_some_and(|path| !path.is_absolute()) {
            report.problem(format!("{field}.path"), "namespace path is not absolute");
        }
    }
}

fn user(spec: &Spec, facts: &Facts, report: &mut Report) {
    let linux = spec.linux().as_ref();
    let uids: &[LinuxIdMapping] = linux.and_then(|l| l.uid_mappings().as_deref()).unwrap_or_default();
    let gids: &[LinuxIdMapping] = linux.and_then(|l| l.gid_mappings().as_deref()).unwrap_or_default();
    let path = namespace(spec, Kind::User);
    let mapped = !uids.is_empty() || !gids.is_empty();
    match &path {
        // runc reads the mappings only of a container that has the namespace.
        None if mapped => report.warning(
            "linux.uidMappings",
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        ),
        Some(path) if path.as_os_str().is_empty() && !mapped => report.problem(
            "linux.namespaces",
            "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        ),
        None | Some(_) => {}
    }
    overlaps("linux.uidMappings", uids, report);
    overlaps("linux.gidMappings", gids, report);
    if facts.rootless_euid {
        rootless(path.as_deref(), uids, gids, report);
    }
}

fn rootless(
    path: Option<&std::path::Path>,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
    report: &mut Report,
) {
    let Some(path) = path else {
        return report.problem("linux.namespaces", "rootless container requires user namespaces");
    };
    if !path.as_os_str().is_empty() {
        return;
    }
    if uids.is_empty() {
        report.problem("linux.uidMappings", "rootless containers requires at least one UID mapping");
    }
    if gids.is_empty() {
        report.problem("linux.gidMappings", "rootless containers requires at least one GID mapping");
    }
}

/// The kernel refuses such maps with a bare EINVAL.
fn overlaps(field: &str, list: &[LinuxIdMapping], report: &mut Report) {
    let range = |first: u32, size: u32| (u64::from(first), u64::from(first) + u64::from(size));
    let meet = |a: (u64, u64), b: (u64, u64)| a.0 < b.1 && b.0 < a.1;
    for (index, mapping) in list.iter().enumerate() {
        let inside = range(mapping.container_id(), mapping.size());
        let outside = range(mapping.host_id(), mapping.size());
        let earlier = &list[..index];
        if mapping.size() == 0 {
            report.problem(format!("{field}[{index}].size"), "must not be 0");
        } else if earlier.iter().any(|m| {
            meet(inside, range(m.container_id(), m.size())) || meet(outside, range(m.host_id(), m.size()))
        }) {
            report.problem(format!("{field}[{index}]"), "overlaps an earlier mapping");
        }
    }
}

fn time(spec: &Spec, report: &mut Report) {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let Some(offsets) = offsets else { return };
    match namespace(spec, Kind::Time) {
        None => report.problem(
            "linux.timeOffsets",
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        ),
        Some(path) if !path.as_os_str().is_empty() => report.problem(
            "linux.timeOffsets",
            "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one",
        ),
        Some(_) => {}
    }
    for clock in offsets.keys().filter(|clock| !matches!(clock.as_str(), "monotonic" | "boottime")) {
        report.problem(format!("linux.timeOffsets.{clock}"), "is neither monotonic nor boottime");
    }
}

fn needs(spec: &Spec, report: &mut Report) {
    let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if namespace(spec, Kind::Uts).is_none() {
        if set(spec.hostname()) {
            report.problem("hostname", "unable to set hostname without a private UTS namespace");
        }
        if set(spec.domainname()) {
            report.problem("domainname", "unable to set domainname without a private UTS namespace");
        }
    }
    let Some(linux) = spec.linux() else { return };
    let full = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if namespace(spec, Kind::Mount).is_none() && (full(linux.masked_paths()) || full(linux.readonly_paths()))
    {
        let text = "unable to restrict sys entries without a private MNT namespace";
        report.problem("linux.maskedPaths", text);
    }
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    if !matches!(
        propagation,
        "" | "shared"
            | "rshared"
            | "slave"
            | "rslave"
            | "private"
            | "rprivate"
            | "unbindable"
            | "runbindable"
    ) {
        report
            .problem("linux.rootfsPropagation", format!("rootfsPropagation={propagation} is not supported"));
    }
}

fn net_devices(spec: &Spec, facts: &Facts, report: &mut Report) {
    let Some(devices) = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref()) else { return };
    if devices.is_empty() {
        return;
    }
    if namespace(spec, Kind::Network).is_none() {
        report.problem("linux.netDevices", "unable to move network devices without a NET namespace");
    }
    if facts.rootless_euid || facts.rootless_cgroups {
        report.problem("linux.netDevices", "network devices are not supported for rootless containers");
    }
    for (name, device) in devices {
        let renamed = device.name().as_deref().filter(|name| !name.is_empty());
        for name in [Some(name.as_str()), renamed].into_iter().flatten() {
            if !valid_device_name(name) {
                report.problem("linux.netDevices", format!("invalid network device name {name:?}"));
            }
        }
    }
}

/// `dev_valid_name` of net/core/dev.c.
fn valid_device_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| matches!(c, '/' | ':') || c.is_whitespace())
}
