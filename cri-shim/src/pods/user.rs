//! Namespaces that belong to a pod's user namespace.

use std::path::Path;

use super::Error;
use super::pins::Wanted;
use super::plan::UserMaps;

/// Makes a user namespace with these maps and the wanted namespaces in it.
pub(super) fn make(_wanted: &Wanted, _maps: &UserMaps, _pin: &Path) -> Result<(), Error> {
    let why = "pods with a user namespace are not served by this version of coracled".to_owned();
    Err(Error::Invalid { field: "linux.security_context.namespace_options.userns_options".into(), why })
}
