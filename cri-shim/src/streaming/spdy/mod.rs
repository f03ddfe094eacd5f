//! SPDY/3.1, as far as the kubelet's, kubectl's and crictl's streams need it. No crate speaks it.

mod dictionary;
pub mod frame;
pub mod headers;
