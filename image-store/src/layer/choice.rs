//! Which back end new layers get: decided by the kernel's release and the file system below the root.
//!
//! Decided when the first layer is written, not when the store is opened: the trial needs space, and a store on a full disk
//! must still be read and emptied.
//!
//! The release decides first (see `backing`: a trial could panic), and only then is a mount tried (an empty layer's), which finds out what no release tells: whether the kernel was built with it and the
//! file system can back it (an overlay can't).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::backing::{Backing, devices_are_short};
use super::store::{Layers, impl_layer_store};
use super::{BackEnd, Choice, DiffId, ErofsLayers, Error, LayerStore, LayerWriter, TreeLayers, store};
use crate::erofs;
use crate::layer::model::LayerTree;

/// Opens the store below `<root>/layers` for new layers of the chosen kind. Layers of the other stay readable.
pub fn open_store(root: &Path, choice: Choice) -> Result<Box<dyn LayerStore>, Error> {
    match choice {
        Choice::Only(BackEnd::Tree) => Ok(Box::new(TreeLayers::open(root)?)),
        Choice::Only(BackEnd::Erofs) => match why_not_erofs(root)? {
            None => Ok(Box::new(ErofsLayers::open(root)?)),
            Some(reason) => Err(Error::BackEnd { back_end: BackEnd::Erofs, reason }),
        },
        Choice::Automatic => Ok(Box::new(Automatic::open(root)?)),
    }
}

/// Asks once which back end works here.
#[derive(Debug)]
struct Automatic(Layers, PathBuf, OnceLock<BackEnd>);

impl Automatic {
    fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self(Layers::open(root)?, root.to_owned(), OnceLock::new()))
    }

    fn new_writer(&self, diff_id: DiffId) -> Result<LayerWriter, Error> {
        match self.back_end()? {
            BackEnd::Erofs => ErofsLayers::of(self.0.clone()).new_writer(diff_id),
            BackEnd::Tree => TreeLayers::of(self.0.clone()).new_writer(diff_id),
        }
    }

    // Two that ask at once find the same answer; an error is no answer, the next layer asks again.
    fn back_end(&self) -> Result<BackEnd, Error> {
        if let Some(known) = self.2.get() {
            return Ok(*known);
        }
        let found = match why_not_erofs(&self.1)? {
            None => BackEnd::Erofs,
            Some(reason) => {
                tracing::info!(reason, "layers are unpacked");
                BackEnd::Tree
            }
        };
        Ok(*self.2.get_or_init(|| found))
    }
}

impl_layer_store!(Automatic);

/// Says why this kernel and the file system of `root` can't mount indexes; `None` when they can.
pub fn why_not_erofs(root: &Path) -> Result<Option<String>, Error> {
    let Some(backing) = Backing::of_this_kernel() else {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        return Ok(Some(format!("Linux {release} is older than 6.4")));
    };
    if backing == Backing::Loop && devices_are_short() {
        return Ok(Some("too many loop devices are in use".to_owned()));
    }
    std::fs::create_dir_all(root).map_err(Error::io("make the directory", root))?;
    let directory = probe_directory(root);
    std::fs::create_dir_all(&directory).map_err(Error::io("make the directory", &directory))?;
    let tried = try_mount(&directory, backing);
    std::fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
    match tried {
        Ok(()) => Ok(None),
        // Nobody who attaches loop devices, or none to be had.
        Err(Error::Io { action, source, .. }) if backing == Backing::Loop && action.starts_with("attach") => {
            Ok(Some(source.to_string()))
        }
        Err(Error::Mount(error)) => {
            use std::error::Error as _;
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            Ok(Some(format!("{error}: {cause}")))
        }
        Err(other) => Err(other),
    }
}

// Several may probe at once, also in one process.
fn probe_directory(root: &Path) -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let nth = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    root.join(format!(".erofs-probe.{}.{nth}", std::process::id()))
}

fn try_mount(directory: &Path, backing: Backing) -> Result<(), Error> {
    let index = directory.join(super::erofs_layers::INDEX);
    let tar = directory.join(super::erofs_layers::TAR);
    std::fs::write(&tar, [0; 1024]).map_err(Error::io("write", &tar))?;
    let mut file = std::fs::File::create(&index).map_err(Error::io("create", &index))?;
    let no_data = |_: u64, _: &mut [u8]| Ok(());
    let io_error = |error| Error::io("write", &index)(error);
    erofs::write(&LayerTree::new(), 1024, [0; 16], &mut file, &no_data, &io_error)?;
    store::mount_erofs(directory, backing).map(drop)
}
