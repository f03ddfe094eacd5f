//! The CRI service: what the kubelet and crictl talk to.
//!
//! Requests are turned into plans by pure code (`oci`); the pod's monitor and the image store do the work.

pub mod config;
mod containers;
pub mod ctl;
pub mod daemon;
mod events;
mod fresh;
pub mod network;
pub mod oci;
mod pods;
pub mod record;
pub mod service;
pub mod stats;
pub mod streaming;
mod usage;
