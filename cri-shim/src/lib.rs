//! The CRI service: what the kubelet and crictl talk to.
//!
//! Requests are turned into plans by pure code (`oci`); the pod's monitor and the image store do the work.

pub mod config;
pub mod ctl;
pub mod network;
pub mod oci;
pub mod service;
