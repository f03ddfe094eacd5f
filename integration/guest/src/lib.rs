//! A throw-away Debian machine with systemd and nothing but cgroup v2, for what the developer's machine cannot show.
//!
//! [`image::ensure`] builds the machine once from Debian packages and caches it. [`machine::run`] boots it (4 s with
//! user-mode Linux, 20 s with QEMU), shares directories of the host at their own paths, runs one command as root and
//! gives back its exit status; the changes to the machine's own disk are forgotten. Both sides are this library: the
//! host's is [`machine`], the guest's is [`agent`], between them lies a directory of plain files ([`control`]):
//!
//! ```text
//! host                                       guest
//! writes control/request, boots       →      systemd starts coracle-guest.service, which mounts control/
//!                                            and executes control/agent: mounts the shares, runs the command
//! forwards what grows in out and err  ←      appends to control/out, control/err
//! reads control/status, waits         ←      renames control/status into place, powers off
//! ```

pub mod agent;
pub mod backend;
pub mod control;
pub mod error;
pub mod image;
pub mod machine;

pub use backend::Backend;
pub use control::Request;
pub use error::Error;
pub use machine::run;
