//! Registries: where a name leads, how to authenticate, how to fetch.

pub mod auth;
