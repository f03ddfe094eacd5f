//! Which back end new layers get: decided by the kernel's release and the file system below the root.
//!
//! File-backed EROFS with 512-byte blocks panics some kernels before 6.12.2, so the release decides first, and only then is
//! a mount tried (an empty layer's), which finds out what no release tells: whether the kernel was built with it and the
//! file system can back it (an overlay can't).

use std::path::Path;

use super::{BackEnd, Choice, ErofsLayers, Error, LayerStore, TreeLayers, store};
use crate::erofs;
use crate::layer::model::LayerTree;

const FIRST_RELEASE: (u32, u32, u32) = (6, 12, 2);

/// Opens the store below `<root>/layers` for new layers of the chosen kind. Layers of the other stay readable.
pub fn open_store(root: &Path, choice: Choice) -> Result<Box<dyn LayerStore>, Error> {
    match choice {
        Choice::Only(BackEnd::Tree) => Ok(Box::new(TreeLayers::open(root)?)),
        Choice::Only(BackEnd::Erofs) => match why_not_erofs(root)? {
            None => Ok(Box::new(ErofsLayers::open(root)?)),
            Some(reason) => Err(Error::BackEnd { back_end: BackEnd::Erofs, reason }),
        },
        Choice::Automatic => match why_not_erofs(root)? {
            None => Ok(Box::new(ErofsLayers::open(root)?)),
            Some(reason) => {
                tracing::info!(reason, "layers are unpacked");
                Ok(Box::new(TreeLayers::open(root)?))
            }
        },
    }
}

/// Says why this kernel and the file system of `root` can't mount indexes; `None` when they can.
pub fn why_not_erofs(root: &Path) -> Result<Option<String>, Error> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    if parse_release(&release).is_none_or(|version| version < FIRST_RELEASE) {
        return Ok(Some(format!("Linux {release} is older than 6.12.2")));
    }
    std::fs::create_dir_all(root).map_err(Error::io("make the directory", root))?;
    let directory = root.join(format!(".erofs-probe.{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(Error::io("make the directory", &directory))?;
    let tried = try_mount(&directory);
    std::fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
    match tried {
        Ok(()) => Ok(None),
        Err(Error::Mount(error)) => {
            use std::error::Error as _;
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            Ok(Some(format!("{error}: {cause}")))
        }
        Err(other) => Err(other),
    }
}

fn try_mount(directory: &Path) -> Result<(), Error> {
    let index = directory.join(super::erofs_layers::INDEX);
    let tar = directory.join(super::erofs_layers::TAR);
    std::fs::write(&tar, [0; 1024]).map_err(Error::io("write", &tar))?;
    let mut file = std::fs::File::create(&index).map_err(Error::io("create", &index))?;
    let no_data = |_: u64, _: &mut [u8]| Ok(());
    let io_error = |error| Error::io("write", &index)(error);
    erofs::write(&LayerTree::new(), 1024, [0; 16], &mut file, &no_data, &io_error)?;
    store::mount_erofs(directory).map(drop)
}

fn parse_release(release: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?, number().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn releases() {
        for (text, version) in [
            ("6.18.44-fc-v509", Some((6, 18, 44))),
            ("6.12", Some((6, 12, 0))),
            ("6.12.1-1-amd64", Some((6, 12, 1))),
            ("6.14-rc3", Some((6, 14, 0))),
            ("linux", None),
        ] {
            assert_eq!(parse_release(text), version, "{text}");
        }
    }
}
