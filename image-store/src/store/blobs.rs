//! Manifests and configurations by digest. Layers' blobs are not kept: their uncompressed form is.

use std::path::PathBuf;

use super::{Error, Store, file};
use crate::Digest;
use crate::manifest::{DOCUMENT_LIMIT, Manifest};

impl Store {
    /// Where a blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    /// Keeps a document under its digest, durable when it returns.
    pub fn put_blob(&self, content: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(content);
        let path = self.blob_path(&digest);
        // A blob of the right length may still be rotten: a pull is the moment to heal it.
        if file::read_bounded(&path, DOCUMENT_LIMIT).is_ok_and(|there| there == content) {
            return Ok(digest);
        }
        file::replace(&path, content).map_err(Error::io("write", &path))?;
        Ok(digest)
    }

    /// Reads a document and checks its digest.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest);
        let content = match file::read_bounded(&path, DOCUMENT_LIMIT) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoSuchBlob { digest: *digest });
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let actual = Digest::of(&content);
        if actual != *digest {
            return Err(Error::CorruptBlob { digest: *digest, actual });
        }
        Ok(content)
    }

    /// The manifest with this digest.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        Ok(Manifest::parse(&self.blob(digest)?, None)?)
    }

    /// The configuration of an image.
    pub fn config(&self, id: &Digest) -> Result<oci_spec::image::ImageConfiguration, Error> {
        Ok(crate::manifest::parse_config(&self.blob(id)?)?)
    }

    /// The blobs by digest; other files in the directory are passed over.
    pub fn list_blobs(&self) -> Result<Vec<Digest>, Error> {
        let directory = self.path("blobs/sha256");
        let names = file::names(&directory).map_err(Error::io("read", &directory))?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }
}
