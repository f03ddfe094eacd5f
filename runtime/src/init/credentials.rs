//! Ids and the five capability sets, set by raw system calls: the process has one thread.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::StepError;
use crate::plan::process::{Capabilities, ProcessPlan};

/// Drops what is not in the bounding set; before the user changes, which may cost CAP_SETPCAP.
///
/// # Errors
/// The kernel's.
pub fn drop_bounding(capabilities: &Capabilities) -> Result<(), StepError> {
    for bit in 0..64 {
        if capabilities.bounding & (1 << bit) != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(Errno::INVAL) => return Ok(()),
            Err(e) => return Err(StepError::os("drop bounding capability", bit, e)),
        }
    }
    Ok(())
}

/// Becomes the process's user, keeping the permitted capabilities for [`set_capability_sets`].
///
/// # Errors
/// Ids that are not mapped; groups where they may not be set.
pub fn set_ids(process: &ProcessPlan, may_set_groups: bool) -> Result<(), StepError> {
    set_keep_capabilities(true).map_err(|e| StepError::os("keep capabilities", "", e))?;
    let groups: Vec<Gid> = process.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    if may_set_groups {
        set_thread_groups(&groups).map_err(|e| StepError::os("setgroups", "", e))?;
    } else if !groups.is_empty() {
        return Err(StepError::why(
            "setgroups",
            "",
            "cannot set any additional groups in a rootless container",
        ));
    }
    let gid = Gid::from_raw(process.gid);
    set_thread_res_gid(gid, gid, gid).map_err(|e| StepError::os("setgid", process.gid, e))?;
    let uid = Uid::from_raw(process.uid);
    set_thread_res_uid(uid, uid, uid).map_err(|e| {
        let error = StepError::os("setuid", process.uid, e);
        if e == Errno::INVAL { error.hint("is the id mapped in the user namespace?") } else { error }
    })
}

/// Sets effective, permitted, inheritable and ambient.
///
/// # Errors
/// A capability that the process does not have itself.
pub fn set_capability_sets(capabilities: &Capabilities) -> Result<(), StepError> {
    set_keep_capabilities(false).map_err(|e| StepError::os("clear keep capabilities", "", e))?;
    let failed = |e| StepError::os("apply capabilities", "", e);
    // What the caller does not have can't be given (a runtime in a restricted container); runc does the same.
    let own = rustix::thread::capabilities(None).map_err(failed)?.permitted.bits();
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective & own),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted & own),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable & own),
    };
    set_capabilities(None, sets).map_err(failed)?;
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there are none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(e) => return Err(StepError::os("clear ambient capabilities", "", e)),
    }
    for bit in (0..64).filter(|bit| capabilities.ambient & (1 << bit) != 0) {
        // Only a capability that is permitted and inheritable can be ambient; runc ignores the others.
        let set = configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << bit), true);
        match set {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(e) => return Err(StepError::os("raise ambient capability", bit, e)),
        }
    }
    Ok(())
}
