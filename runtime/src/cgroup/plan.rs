//! What is to be done for one container, decided before anything is touched.
//!
//! Where the groups lie follows runc: an absolute `cgroupsPath` starts at each hierarchy's mount, a relative one at the
//! caller's group (version 2: at that group's parent, for a group with processes cannot enable controllers for others).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use super::devices::DeviceRules;
use super::host::Hierarchy;
use super::scope::ScopePlan;
use super::write::Write;
use super::{Driver, Error, HostCgroups, limits_v1, limits_v2};

/// The directories, limits and device rules of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupPlan {
    /// Who makes the groups.
    pub driver: Driver,
    /// Version 2 alone; else version 1, maybe with cgroup2 beside it.
    pub unified: bool,
    /// Controller or, for cgroup2, the empty string, to directory.
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// The same keys to the mounts.
    pub(super) mounts: BTreeMap<String, PathBuf>,
    /// Limits in order.
    pub limits: Vec<Write>,
    /// Device rules.
    pub devices: DeviceRules,
    /// The scope, with systemd.
    pub(super) scope: Option<ScopePlan>,
    /// Groups that we may not make are left out, not an error: the caller is not root and named none.
    pub forgiving: bool,
    /// The caller is not root.
    pub rootless: bool,
    pub(super) warnings: Vec<String>,
}

impl CgroupPlan {
    /// Controller (version 1) or the empty string (version 2) to the group's directory: for the record, before anything is made.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.paths.clone()
    }

    /// The systemd scope.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_ref().map(|scope| scope.unit.as_str())
    }

    /// What has no effect on this host, for the log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Plans the groups of container `id`.
///
/// # Errors
/// A path or value that cannot be.
pub fn plan(
    spec: &Spec,
    id: &str,
    driver: Driver,
    rootless: bool,
    host: &HostCgroups,
) -> Result<CgroupPlan, Error> {
    if driver == Driver::Disabled {
        return Ok(CgroupPlan { driver, ..CgroupPlan::default() });
    }
    let linux = spec.linux().as_ref();
    let wanted = linux.and_then(|l| l.cgroups_path().as_deref()).filter(|p| !p.as_os_str().is_empty());
    let none = LinuxResources::default();
    let resources = linux.and_then(|l| l.resources().as_ref()).unwrap_or(&none);
    let (scope, place) = match driver {
        Driver::Systemd => {
            let scope = ScopePlan::new(spec, wanted, id, rootless, resources, host.unified)?;
            let place = Place::Absolute(clean(&host.user_manager.join(&scope.path)));
            (Some(scope), place)
        }
        Driver::Cgroupfs | Driver::Disabled => (None, Place::of(wanted, id)?),
    };
    let mut paths = BTreeMap::new();
    let mut mounts = BTreeMap::new();
    for (controller, hierarchy) in &host.hierarchies {
        paths.insert(controller.clone(), place.below(hierarchy, host.unified));
        mounts.insert(controller.clone(), hierarchy.mountpoint.clone());
    }
    let (limits, warnings) = if host.unified {
        (limits_v2::limits(resources)?, limits_v2::without_effect(resources))
    } else {
        (limits_v1::limits(resources, limits_v1::Current::FRESH)?, ignored_on_v1(resources))
    };
    let devices = DeviceRules::from_spec(resources.devices().as_deref().unwrap_or_default())?;
    Ok(CgroupPlan {
        driver,
        unified: host.unified,
        paths,
        mounts,
        limits,
        devices,
        scope,
        forgiving: rootless && wanted.is_none(),
        rootless,
        warnings,
    })
}

fn ignored_on_v1(resources: &LinuxResources) -> Vec<String> {
    let unified = resources.unified().as_ref().is_some_and(|map| !map.is_empty());
    unified.then(|| "linux.resources.unified has no effect on cgroup v1".to_owned()).into_iter().collect()
}

enum Place {
    Absolute(PathBuf),
    Relative(PathBuf),
}

impl Place {
    fn of(wanted: Option<&Path>, id: &str) -> Result<Self, Error> {
        let Some(path) = wanted else { return Ok(Self::Relative(id.into())) };
        let clean = clean(path);
        if clean.as_os_str().is_empty() {
            return Err(Error::Invalid(format!("cgroupsPath {} names no group", path.display())));
        }
        Ok(if path.is_absolute() { Self::Absolute(clean) } else { Self::Relative(clean) })
    }

    fn below(&self, hierarchy: &Hierarchy, unified: bool) -> PathBuf {
        match self {
            Self::Absolute(path) => hierarchy.mountpoint.join(path),
            Self::Relative(path) => {
                let own = hierarchy.own.strip_prefix(hierarchy.root.trim_end_matches('/'));
                let own = clean(Path::new(own.unwrap_or(&hierarchy.own)));
                let base = if unified { own.parent().unwrap_or(Path::new("")) } else { &own };
                hierarchy.mountpoint.join(base).join(path)
            }
        }
    }
}

/// The path below an imagined root: `..` cannot leave it.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
