//! The pod's cgroup: the kubelet's where it names one, else one of our own below `/coracle`, with the pod's limits.

use coracle_runtime::cgroup::{Cgroup, CgroupPlan, Driver, HostCgroups, plan};
use k8s_cri::v1::{LinuxContainerResources, PodSandboxConfig};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::Error;
use crate::config::CgroupDriver;
use crate::oci::resources;

/// Below which pods lie for which the client names no cgroup.
const PARENT: &str = "/coracle";
/// The same for systemd.
const SLICE: &str = "system.slice";

/// The parent of the containers' groups, and whether it is one that we make.
///
/// One that is there belongs to somebody else (the kubelet), who sets its limits and removes it.
pub(super) fn place(
    config: &PodSandboxConfig,
    id: &str,
    driver: CgroupDriver,
) -> Result<(String, bool), Error> {
    let asked = config.linux.as_ref().map(|l| l.cgroup_parent.as_str()).unwrap_or_default();
    match (driver, asked) {
        (CgroupDriver::Systemd, "") => Ok((SLICE.into(), false)),
        (CgroupDriver::Systemd, slice) => {
            let name = slice.rsplit('/').next().unwrap_or(slice);
            if !name.ends_with(".slice") {
                let why = format!("{slice:?} is no slice, which the systemd cgroup driver needs");
                return Err(Error::Invalid { field: "linux.cgroup_parent".into(), why });
            }
            Ok((name.into(), false))
        }
        (CgroupDriver::Cgroupfs, "") => Ok((format!("{PARENT}/{id}"), true)),
        (CgroupDriver::Cgroupfs, path) => {
            if path.ends_with(".slice") && !path.contains('/') {
                let why = format!("{path:?} is a slice; coracled is configured for cgroupfs");
                return Err(Error::Invalid { field: "linux.cgroup_parent".into(), why });
            }
            let path = format!("/{}", path.trim_matches('/'));
            let there = planned(&path, json!({}))?.paths().values().any(|directory| directory.exists());
            Ok((path, !there))
        }
    }
}

/// Makes the group with the pod's limits; blocking.
pub(super) fn make(path: &str, config: &PodSandboxConfig) -> Result<(), Error> {
    let limits = limits(config)?;
    let fail = |source| Error::Cgroup { path: path.into(), source };
    let group = Cgroup::create(&planned(path, limits)?).map_err(fail)?;
    group.apply_limits().map_err(fail)
}

/// Removes a group that [`make`] made, and what a container's end left below; blocking.
pub(super) fn remove(path: &str) -> Result<(), Error> {
    let fail = |source| Error::Cgroup { path: path.into(), source };
    let paths = planned(path, json!({}))?.paths();
    if path.starts_with(&format!("{PARENT}/")) {
        return Cgroup::load(paths, None).and_then(|group| group.remove()).map_err(fail);
    }
    for directory in paths.values() {
        // Another pod may share a parent of that name: then it stays.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

fn planned(path: &str, resources: Value) -> Result<CgroupPlan, Error> {
    let fail = |source| Error::Cgroup { path: path.into(), source };
    let host = HostCgroups::gather().map_err(fail)?;
    let spec = json!({"ociVersion": "1.2.0", "linux": {"cgroupsPath": path, "resources": resources}});
    let spec: Spec = serde_json::from_value(spec)
        .map_err(|e| Error::Invalid { field: "linux.resources".into(), why: e.to_string() })?;
    plan(&spec, "", Driver::Cgroupfs, false, &host).map_err(fail)
}

/// The pod's limits: those of its containers together, and what the pod costs beside them.
fn limits(config: &PodSandboxConfig) -> Result<Value, Error> {
    let linux = config.linux.clone().unwrap_or_default();
    let sum = add(linux.resources.unwrap_or_default(), &linux.overhead.unwrap_or_default());
    resources::limits(&sum)
        .map_err(|e| Error::Invalid { field: "linux.resources".into(), why: e.to_string() })
}

/// What is unlimited stays so: an overhead alone is no limit.
fn add(mut pod: LinuxContainerResources, overhead: &LinuxContainerResources) -> LinuxContainerResources {
    if pod.memory_limit_in_bytes > 0 {
        pod.memory_limit_in_bytes = pod.memory_limit_in_bytes.saturating_add(overhead.memory_limit_in_bytes);
    }
    if pod.cpu_quota > 0 && pod.cpu_period == overhead.cpu_period {
        pod.cpu_quota = pod.cpu_quota.saturating_add(overhead.cpu_quota);
    }
    if pod.cpu_shares > 0 {
        pod.cpu_shares = pod.cpu_shares.saturating_add(overhead.cpu_shares);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overhead_adds_to_limits_and_makes_none() {
        let overhead = LinuxContainerResources {
            memory_limit_in_bytes: 10,
            cpu_quota: 5,
            cpu_period: 100_000,
            ..Default::default()
        };
        let pod = LinuxContainerResources {
            memory_limit_in_bytes: 100,
            cpu_quota: 50,
            cpu_period: 100_000,
            ..Default::default()
        };
        let sum = add(pod, &overhead);
        assert_eq!((sum.memory_limit_in_bytes, sum.cpu_quota), (110, 55));
        assert_eq!(add(LinuxContainerResources::default(), &overhead), LinuxContainerResources::default());
    }

    #[test]
    fn a_slice_needs_systemd() {
        let with = |parent: &str, driver| {
            let linux =
                k8s_cri::v1::LinuxPodSandboxConfig { cgroup_parent: parent.into(), ..Default::default() };
            place(&PodSandboxConfig { linux: Some(linux), ..Default::default() }, "id", driver)
        };
        assert_eq!(with("", CgroupDriver::Cgroupfs).expect("own"), ("/coracle/id".to_owned(), true));
        assert_eq!(
            with("/kubepods.slice/kubepods-a.slice", CgroupDriver::Systemd).expect("slice"),
            ("kubepods-a.slice".to_owned(), false)
        );
        assert!(with("/kubepods/a", CgroupDriver::Systemd).is_err());
        assert!(with("kubepods-a.slice", CgroupDriver::Cgroupfs).is_err());
    }
}
