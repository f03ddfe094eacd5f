//! Limits as data: which value goes into which file of which hierarchy, in which order, and what a refusal means.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::Error;
use super::directory::Directory;

/// What to do when the kernel refuses a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Give up.
    Fail,
    /// The file is absent from older kernels, and the value changes nothing there.
    IgnoreMissing,
    /// EINVAL: the value contradicts one that a later write of this controller changes; then it is written again.
    RetryLast,
    /// The file is absent: write this value to that one.
    Instead(String, String),
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key of the hierarchy in `cgroup_paths`.
    pub controller: &'static str,
    /// The file.
    pub file: String,
    /// The value.
    pub value: String,
    /// What a refusal means.
    pub refused: Refused,
}

impl Write {
    pub(super) fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), refused: Refused::Fail }
    }

    pub(super) fn or(mut self, refused: Refused) -> Self {
        self.refused = refused;
        self
    }
}

/// Walks the writes. `directories` is keyed like `cgroup_paths`.
pub(super) fn apply(writes: &[Write], directories: &BTreeMap<String, Directory>) -> Result<(), Error> {
    let mut later: Vec<&Write> = Vec::new();
    for (index, write) in writes.iter().enumerate() {
        let Some(directory) = directories.get(write.controller) else {
            return Err(no_controller(write));
        };
        match (directory.write(&write.file, &write.value), &write.refused) {
            (Ok(()), _) if write.file == "cpu.shares" => check_shares(write, directory)?,
            (Ok(()), _) => {}
            (Err(error), Refused::IgnoreMissing) if error.errno() == Some(Errno::NOENT) => {}
            (Err(error), Refused::RetryLast) if error.errno() == Some(Errno::INVAL) => later.push(write),
            (Err(error), Refused::RetryLast)
                if write.file.contains("burst") && error.errno() == Some(Errno::NOENT) => {}
            (Err(error), Refused::Instead(file, value)) if error.errno() == Some(Errno::NOENT) => {
                directory.write(file, value)?;
            }
            (Err(error), _) => return Err(explain(error, write, directory)),
        }
        let last = writes.get(index + 1).is_none_or(|next| next.controller != write.controller);
        if last || write.file.contains("quota") || write.file == "cpu.max" {
            for write in later.drain(..) {
                directory.write(&write.file, &write.value)?;
            }
        }
    }
    Ok(())
}

/// The kernel takes any number of shares and cuts it to its range without a word.
fn check_shares(write: &Write, directory: &Directory) -> Result<(), Error> {
    let kept = directory.number("cpu.shares")?;
    match write.value.parse::<u64>().unwrap_or(kept).cmp(&kept) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            Err(Error::Invalid(format!("the maximum allowed cpu-shares is {kept}")))
        }
        std::cmp::Ordering::Less => Err(Error::Invalid(format!("the minimum allowed cpu-shares is {kept}"))),
    }
}

fn no_controller(write: &Write) -> Error {
    let name = if write.controller.is_empty() { "unified" } else { write.controller };
    Error::Unsupported(format!(
        "cannot set {} to {}: the container has no cgroup of controller {name}",
        write.file, write.value
    ))
}

/// Says more than the errno where we know more.
fn explain(error: Error, write: &Write, directory: &Directory) -> Error {
    match (error.errno(), write.file.as_str()) {
        (Some(Errno::BUSY), "memory.limit_in_bytes") => {
            let number = |file| directory.number(file).unwrap_or_default();
            Error::Invalid(format!(
                "unable to set memory limit to {} (current usage: {}, peak usage: {})",
                write.value,
                number("memory.usage_in_bytes"),
                number("memory.max_usage_in_bytes")
            ))
        }
        (Some(Errno::NOENT), file) if write.controller.is_empty() => {
            let name = file.split('.').next().unwrap_or_default();
            let enabled = directory.read("cgroup.controllers").unwrap_or_default();
            if name == "cgroup" || enabled.split_whitespace().any(|c| c == name) {
                return error;
            }
            Error::Unsupported(format!(
                "{error} (controller {name} is not enabled for {})",
                directory.path().display()
            ))
        }
        _ => error,
    }
}
