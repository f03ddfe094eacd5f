//! OCI image layouts: `index.json` and `blobs/sha256/<hex>`.

use super::archive::Archive;
use super::{Error, Found, ImportOptions};
use crate::manifest::{self, Descriptor, IndexEntry, Manifest, Platform};
use crate::{Digest, Reference, pull};

pub(super) fn images(archive: &Archive, options: &ImportOptions) -> Result<Vec<Found>, Error> {
    let Manifest::Index(entries) = Manifest::parse(&archive.document("index.json")?, None)? else {
        return Err(manifest::Error::Ambiguous("index.json is no index").into());
    };
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    entries.iter().map(|entry| image(archive, entry, &platform)).collect()
}

fn image(archive: &Archive, entry: &IndexEntry, platform: &Platform) -> Result<Found, Error> {
    let digest = entry.manifest.digest;
    let mut documents = vec![blob(archive, &entry.manifest)?];
    let (manifest, image) = match Manifest::parse(&documents[0], Some(&entry.manifest.media_type))? {
        Manifest::Image(image) => (digest, image),
        Manifest::Index(entries) => {
            let chosen = manifest::choose(&entries, platform)?.manifest.clone();
            let document = blob(archive, &chosen)?;
            let Manifest::Image(image) = Manifest::parse(&document, Some(&chosen.media_type))? else {
                return Err(manifest::Error::Ambiguous("an index within an index within an index").into());
            };
            documents.push(document);
            (chosen.digest, image)
        }
    };
    let config = blob(archive, &image.config)?;
    let record = pull::image_record(&image, manifest, &manifest::parse_config(&config)?)?;
    documents.push(config);
    // A bare tag (`latest`), which many tools write, is no name of an image: such an image stays unnamed.
    let name = entry.ref_name.as_deref().filter(|name| name.contains(['/', ':']));
    let names = name.map(|name| Ok::<_, Error>(name.parse::<Reference>()?.to_string())).transpose()?;
    let members = image.layers.iter().map(|layer| member(&layer.digest)).collect();
    Ok(Found { record, digest, documents, names: names.into_iter().collect(), members })
}

fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let name = member(&descriptor.digest);
    let content = archive.document(&name)?;
    let actual = Digest::of(&content);
    if actual != descriptor.digest {
        return Err(Error::Member { name, what: format!("its content has the digest {actual}") });
    }
    Ok(content)
}
