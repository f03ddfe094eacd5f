//! Images: pulled, kept, mounted. The library knows no daemon; the commands use it as well.
#![forbid(unsafe_code)]

pub mod error;
pub mod fault;
pub mod layer;
pub mod mount;
