//! The harness of the suites that need a real kernel: bundles, runtimes, terminals, and what a test may leave behind.
//!
//! A suite speaks to a [`Runtime`], which is `coracle` or one of its peers, through a [`Container`] that owns its bundle,
//! its state root and its id. Everything a container makes carries that id, so that leaks are found (`leaks`) while other
//! tests run beside it. Every wait has a deadline.
//!
//! What speaks the CRI is behind the feature `cri`: `xtask` uses the rest on machines that have no protoc yet.

pub mod bundle;
pub mod console;
pub mod container;
#[cfg(feature = "cri")]
pub mod cri;
#[cfg(feature = "cri")]
pub mod cri_pod;
pub mod images;
pub mod inside;
pub mod leaks;
pub mod privilege;
pub mod runtime;
pub mod stuck;
pub mod wait;
pub mod web_image;

pub use bundle::Bundle;
pub use container::Container;
pub use runtime::{Outcome, Runtime};
