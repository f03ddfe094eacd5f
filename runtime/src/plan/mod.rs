//! Pure planning: a specification and the facts of the host in, plain data in order out. Nothing here calls the kernel.

mod host;

pub use host::{HostFacts, V1Hierarchy};
