//! SPDY/3.1, as far as the kubelet's, kubectl's and crictl's streams need it. No crate speaks it.

mod connection;
mod dictionary;
pub mod frame;
pub mod headers;
mod window;

pub(super) use connection::{Connection, Credit, Output, Stream};
