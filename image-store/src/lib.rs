//! The image store as a library: references, registries, blobs, layers, image records, garbage collection, repair.
//! It knows no daemon and no command line; both use it.
//!
//! A pull resolves a name to a manifest (`registry`, `manifest`), streams each layer once into the layer store (`pull`,
//! `layer`), and writes the record last (`store`): a reader that finds a record finds everything that it names.
//! Everything that comes from a registry or an archive is hostile input.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod digest;
mod erofs;
pub mod error;
pub mod export;
pub mod fault;
pub mod import;
pub mod layer;
pub mod manifest;
pub mod mount;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;
pub mod tar;

pub use digest::Digest;
pub use error::{ErrorKind, Kind};
pub use progress::{Event, Progress};
pub use pull::{PullOptions, Pulled, Puller};
pub use reference::Reference;
pub use registry::auth::Credentials;
pub use store::Store;
