//! ImageService: the store as the kubelet sees it.
//!
//! An image's id is the digest of its configuration, with `sha256:`; that is also what a pull answers and what a container
//! will carry as its `image_ref`.

use coracle_image_store::store::Image as Stored;
use coracle_image_store::{Credentials, ErrorKind, Kind, PullOptions, Puller, Reference, Store};
use k8s_cri::v1::image_service_server::ImageService;
use k8s_cri::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse,
    PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, UInt64Value,
};
use tonic::{Request, Response, Status};

use super::status_of;
use crate::usage::{self, Usage};

/// The directories of the image store below its root.
const STORE: [&str; 5] = ["blobs", "images", "ingest", "layers", "leases"];

/// The service.
#[derive(Clone)]
pub struct Images {
    puller: Puller,
}

impl Images {
    #[must_use]
    pub const fn new(puller: Puller) -> Self {
        Self { puller }
    }

    /// Runs what reads or writes the disk off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.puller.store().clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|e| Err(Status::internal(format!("image service: {e}"))))
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let wanted =
            request.into_inner().filter.and_then(|f| f.image).map(|i| i.image).filter(|i| !i.is_empty());
        let images = self.blocking(move |store| {
            let found = match wanted {
                Some(name) => find(store, &name)?.into_iter().collect(),
                None => store.images().map_err(|e| status_of(&e))?,
            };
            Ok(found.iter().map(|image| describe(store, image)).collect())
        });
        Ok(Response::new(ListImagesResponse { images: images.await? }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let name = named(request.into_inner().image)?;
        let image = self.blocking(move |store| Ok(find(store, &name)?.map(|image| describe(store, &image))));
        Ok(Response::new(ImageStatusResponse { image: image.await?, ..ImageStatusResponse::default() }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let namespace =
            request.sandbox_config.and_then(|c| c.metadata).map(|m| m.namespace).unwrap_or_default();
        let name = named(request.image)?;
        let reference: Reference =
            name.parse().map_err(|e| Status::invalid_argument(format!("image {name:?}: {e}")))?;
        let credentials = request.auth.map(credentials).transpose()?.filter(|c| !c.is_empty());
        let options = PullOptions { credentials, namespace, ..PullOptions::default() };
        let pulled = self.puller.pull(&reference, &options).await.map_err(|e| status_of(&*e))?;
        tracing::info!(image = %name, id = %pulled.id, "pulled");
        Ok(Response::new(PullImageResponse { image_ref: pulled.id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        // An image that is not there is removed: the kubelet retries until it hears success.
        self.blocking(move |store| match store.remove_image(&name, true) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(status_of(&e)),
            _ => Ok(()),
        })
        .await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let usage = self.blocking(|store| {
            // Not what containers have written, which lies below the same root.
            let parts = STORE.map(|part| usage::measure(&store.root().join(part)));
            let used = parts.iter().fold(Usage::default(), |sum, part| Usage {
                bytes: sum.bytes + part.bytes,
                inodes: sum.inodes + part.inodes,
            });
            Ok(FilesystemUsage {
                timestamp: crate::fresh::now(),
                fs_id: Some(FilesystemIdentifier { mountpoint: store.root().display().to_string() }),
                used_bytes: Some(UInt64Value { value: used.bytes }),
                inodes_used: Some(UInt64Value { value: used.inodes }),
            })
        });
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.await?],
            container_filesystems: vec![],
        }))
    }
}

fn named(image: Option<ImageSpec>) -> Result<String, Status> {
    let name = image.map(|i| i.image).unwrap_or_default();
    if name.is_empty() { Err(Status::invalid_argument("image: no name given")) } else { Ok(name) }
}

/// `None` where there is no such image, which is an answer and no error.
fn find(store: &Store, name: &str) -> Result<Option<Stored>, Status> {
    match store.image(name) {
        Ok(image) => Ok(Some(image)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(status_of(&e)),
    }
}

fn describe(store: &Store, image: &Stored) -> Image {
    let config = store.config(&image.record.id).ok();
    let user =
        config.as_ref().and_then(|c| c.config().as_ref()).and_then(|c| c.user().clone()).unwrap_or_default();
    let (uid, username) = split_user(&user);
    Image {
        id: image.record.id.to_string(),
        repo_tags: image.repo_tags(),
        repo_digests: image.repo_digests(),
        size: store.disk_bytes(&image.record),
        uid: uid.map(|value| Int64Value { value }),
        username,
        ..Image::default()
    }
}

/// The image's `User` as the kubelet's check for root wants it: a number, or a name; the group is left out.
fn split_user(user: &str) -> (Option<i64>, String) {
    let user = user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(uid) => (Some(uid.into()), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

/// `auth` is base64 of `user:password`, as in docker's configuration file.
fn credentials(auth: AuthConfig) -> Result<Credentials, Status> {
    let mut credentials = Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    };
    if !auth.auth.is_empty() && credentials.username.is_empty() {
        let bad = || Status::invalid_argument("auth: not base64 of user:password");
        let text = decode_base64(auth.auth.trim()).and_then(|b| String::from_utf8(b).ok()).ok_or_else(bad)?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        credentials.username = username.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    Ok(credentials)
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        bits = (bits << 6 | u32::from(value(byte)?)) & 0xFF_FFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xFF) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names() {
        assert_eq!(split_user("101:102"), (Some(101), String::new()));
        assert_eq!(split_user("web:web"), (None, "web".into()));
        assert_eq!(split_user(""), (None, String::new()));
    }

    #[test]
    fn docker_auth_is_decoded() {
        let auth = |text: &str| credentials(AuthConfig { auth: text.into(), ..AuthConfig::default() });
        let got = auth("dXNlcjpwYTpzcw==").expect("valid");
        assert_eq!((got.username.as_str(), got.password.as_str()), ("user", "pa:ss"));
        assert!(auth("!!!").is_err() && auth("dXNlcg==").is_err());
    }
}
