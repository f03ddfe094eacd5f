//! Records of one kind: a directory of directories, and the same in memory.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use coracle_image_store::store::file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;

/// What can be kept in an [`Index`].
pub trait Record: Clone + Default + Serialize + DeserializeOwned + Send + Sync {
    /// Name of the file in the object's directory.
    const FILE: &'static str;
    fn id(&self) -> &str;
}

/// An object that is shared by everybody who works with it; what `read` shows is never half of a change.
#[derive(Debug)]
pub struct Entry<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    /// `<index>/<id>`.
    directory: PathBuf,
    value: RwLock<T>,
    /// Held by an operation that changes the object (start, stop, remove), over its awaits.
    turn: tokio::sync::Mutex<()>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Record> Entry<T> {
    /// The object as it is now. Not to be held over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.inner.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of it.
    #[must_use]
    pub fn get(&self) -> T {
        self.read().clone()
    }

    /// The directory of its files on `--root`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The right to change the object; one operation has it at a time.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.turn.lock().await
    }

    /// Changes the object and writes it; on an error neither disk nor memory are changed.
    pub fn update(&self, change: impl FnOnce(&mut T)) -> Result<(), Error> {
        let mut value = self.inner.value.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = value.clone();
        change(&mut changed);
        write(&self.inner.directory, &changed)?;
        *value = changed;
        Ok(())
    }

    /// Changes the object and writes it so that it outlives the daemon, but maybe not the machine: for facts of this boot.
    pub fn update_for_boot(&self, change: impl FnOnce(&mut T)) -> Result<(), Error> {
        let mut value = self.inner.value.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = value.clone();
        change(&mut changed);
        write_with(&self.inner.directory, &changed, replace_without_sync)?;
        *value = changed;
        Ok(())
    }

    /// Changes the object and writes it. Memory is changed even where the disk is full: for facts that happened whatever
    /// the disk says, and that a restart learns from elsewhere (an exit, from the monitor's record).
    pub fn establish(&self, change: impl FnOnce(&mut T)) -> Result<(), Error> {
        let mut value = self.inner.value.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut value);
        write(&self.inner.directory, &*value)
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Index<T> {
    directory: PathBuf,
    objects: Mutex<BTreeMap<String, Entry<T>>>,
}

impl<T: Record> Index<T> {
    pub(super) fn open(directory: PathBuf) -> Result<Self, Error> {
        make_directory(&directory)?;
        let names = file::names(&directory).map_err(|source| Error::Path {
            action: "list",
            path: directory.clone(),
            source,
        })?;
        let mut objects = BTreeMap::new();
        for name in names {
            let place = directory.join(&name);
            match load::<T>(&place) {
                Ok(value) => {
                    objects.insert(value.id().to_owned(), entry(place, value));
                }
                Err(error) => {
                    tracing::warn!(path = %place.display(), %error, "record not readable, passed over")
                }
            }
        }
        Ok(Self { directory, objects: Mutex::new(objects) })
    }

    /// Adds an object and writes its record.
    pub fn insert(&self, value: T) -> Result<Entry<T>, Error> {
        let directory = self.directory.join(value.id());
        make_directory(&directory)?;
        write(&directory, &value)?;
        let added = entry(directory, value);
        self.lock().insert(added.read().id().to_owned(), added.clone());
        Ok(added)
    }

    /// The same for one that need not outlive the machine yet.
    pub fn insert_for_boot(&self, value: T) -> Result<Entry<T>, Error> {
        let directory = self.directory.join(value.id());
        make_directory(&directory)?;
        write_with(&directory, &value, replace_without_sync)?;
        let added = entry(directory, value);
        self.lock().insert(added.read().id().to_owned(), added.clone());
        Ok(added)
    }

    /// The object with exactly this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Entry<T>> {
        self.lock().get(id).cloned()
    }

    /// The object whose id begins so, where there is exactly one (crictl's short ids).
    #[must_use]
    pub fn find(&self, prefix: &str) -> Option<Entry<T>> {
        if prefix.is_empty() {
            return None;
        }
        let objects = self.lock();
        let mut found = objects.range(prefix.to_owned()..).take_while(|(id, _)| id.starts_with(prefix));
        let (first, second) = (found.next(), found.next());
        first.filter(|(id, _)| second.is_none() || *id == prefix).map(|(_, entry)| entry.clone())
    }

    /// All objects, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Entry<T>> {
        self.lock().values().cloned().collect()
    }

    /// Forgets an object and removes its directory: renamed first, so that a crash leaves no half of it.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let place = self.directory.join(id);
        let dead = self.directory.join(format!(".{id}.removed"));
        match std::fs::rename(&place, &dead) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Path { action: "remove", path: place, source: e });
            }
            _ => {}
        }
        self.lock().remove(id);
        match std::fs::remove_dir_all(&dead) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Path { action: "remove", path: dead, source: e })
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry<T>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<T>(directory: PathBuf, value: T) -> Entry<T> {
    let inner = Inner { directory, value: RwLock::new(value), turn: tokio::sync::Mutex::new(()) };
    Entry { inner: Arc::new(inner) }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|source| Error::Path {
        action: "create directory",
        path: path.into(),
        source,
    })
}

fn write<T: Record>(directory: &Path, value: &T) -> Result<(), Error> {
    write_with(directory, value, file::replace)
}

/// A reader, also the next daemon, finds the old content or the new one.
fn replace_without_sync(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("json.new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    std::fs::rename(&temporary, path)
}

fn write_with<T: Record>(
    directory: &Path,
    value: &T,
    replace: impl FnOnce(&Path, &[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| Error::Json { id: value.id().to_owned(), source })?;
    let path = directory.join(T::FILE);
    replace(&path, &text).map_err(|source| Error::Path { action: "write", path, source })
}

/// Reads a record; fields that an older version did not write have their defaults.
fn load<T: Record>(directory: &Path) -> std::io::Result<T> {
    let bytes = file::read_record(&directory.join(T::FILE))?;
    let mut whole = serde_json::to_value(T::default())?;
    merge(&mut whole, serde_json::from_slice(&bytes)?);
    Ok(serde_json::from_value(whole)?)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use crate::record::{Container, Records};

    #[test]
    fn a_record_survives_and_prefixes_find_it() {
        let root = tempfile::tempdir().expect("directory");
        let records = Records::open(root.path()).expect("open");
        for id in ["aab", "abb"] {
            let container = Container { id: id.into(), ..Container::default() };
            records.containers.insert(container).expect("insert");
        }
        records.containers.get("aab").expect("there").update(|c| c.exit_code = 7).expect("update");
        let again = Records::open(root.path()).expect("open");
        assert_eq!(again.containers.find("aa").expect("one").read().exit_code, 7);
        assert!(again.containers.find("a").is_none(), "two begin with it");
        again.containers.remove("aab").expect("remove");
        assert!(Records::open(root.path()).expect("open").containers.get("aab").is_none());
    }

    #[test]
    fn an_older_record_is_read_and_a_broken_one_passed_over() {
        let root = tempfile::tempdir().expect("directory");
        let place = root.path().join("cri/containers");
        std::fs::create_dir_all(place.join("old")).expect("mkdir");
        std::fs::create_dir_all(place.join("bad")).expect("mkdir");
        std::fs::write(place.join("old/container.json"), r#"{"id": "old"}"#).expect("write");
        std::fs::write(place.join("bad/container.json"), "{").expect("write");
        let records = Records::open(root.path()).expect("open");
        assert_eq!(records.containers.list().len(), 1);
    }
}
