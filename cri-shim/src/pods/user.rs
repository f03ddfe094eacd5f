//! Namespaces that belong to a pod's user namespace.
//!
//! The kernel makes a user namespace only with a process: the runtime's library clones one for a moment, in all namespaces
//! that are wanted, and hands their descriptors over. A thread enters those but the user namespace, which the daemon's own
//! privilege suffices for, and configures and pins them as it does the others.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use coracle_runtime::sys::user_namespace;
use nix::sched::{CloneFlags, setns};

use super::Error;
use super::pins::{self, Wanted};
use super::plan::UserMaps;

/// Makes a user namespace with these maps and the wanted namespaces in it; blocking.
pub(super) fn make(wanted: Wanted, maps: &UserMaps, pin: &Path) -> Result<(), Error> {
    pins::prepare(pin)?;
    for path in wanted.paths() {
        pins::prepare(path)?;
    }
    let kinds: Vec<_> = wanted.kinds().into_iter().filter(|(_, _, path)| path.is_some()).collect();
    let flags: Vec<_> = kinds.iter().map(|(name, flag, _)| (*name, flag.bits())).collect();
    let fail = |source| Error::Namespaces { action: "make the user namespace of", source };
    let mut made = user_namespace::create_owning(&flags, &maps.uids, &maps.gids).map_err(fail)?;
    let others: Vec<(CloneFlags, OwnedFd)> =
        kinds.iter().map(|(_, flag, _)| *flag).zip(made.split_off(1)).collect();
    for user in &made {
        pins::bind(Path::new(&format!("/proc/self/fd/{}", user.as_raw_fd())), pin)?;
    }
    pins::on_a_thread(move || {
        for (flag, namespace) in others {
            setns(namespace, flag)
                .map_err(|errno| Error::Namespaces { action: "enter", source: errno.into() })?;
        }
        pins::configure(&wanted)
    })
}
