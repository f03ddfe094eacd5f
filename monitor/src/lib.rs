//! The pod's monitor: one small static program a pod that owns its containers' processes, streams, logs and exit codes,
//! and goes on when the daemon is gone.
//!
//! ```text
//! daemon ──seqpacket──▶ monitor ──fork──▶ worker ──clone3──▶ container
//!          (requests,     │  ▲              (dies; the container's init becomes the monitor's child)
//!           descriptors)  │  └── pipes: stdout, stderr ──▶ CRI log
//!                         └───── exits/<id>.json, written before anybody is told
//! ```
//! The loop is single-threaded and makes no call that can block; what may block runs in a worker with a deadline.

pub mod client;
pub mod exits;
pub mod log;
pub mod pod_init;
pub mod protocol;
pub mod server;
pub mod wire;

mod container;
mod engine;
mod process;
