//! Containers over the daemon's socket, with the real monitor and runtime.

#![allow(clippy::unwrap_used)]

mod faults;
mod inside;
mod life;
mod limits;
mod stuck;
