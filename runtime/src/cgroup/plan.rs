//! What is to be done for one container, decided before anything is touched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::{Driver, Error, HostCgroups};

/// The directories, limits and device rules of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupPlan {}

impl CgroupPlan {
    /// Controller (version 1) or the empty string (version 2) to the group's directory: for the record, before anything is made.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        BTreeMap::new()
    }

    /// The systemd scope.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        None
    }

    /// What has no effect on this host, for the log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &[]
    }
}

/// Plans the groups of container `id`.
///
/// # Errors
/// A path or value that cannot be.
pub fn plan(
    _spec: &Spec,
    _id: &str,
    _driver: Driver,
    _rootless: bool,
    _host: &HostCgroups,
) -> Result<CgroupPlan, Error> {
    Ok(CgroupPlan::default())
}
