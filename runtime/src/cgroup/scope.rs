//! systemd's side of a plan: the scope's name and path, and its properties.
//!
//! The scope is named as runc names it, because callers compute its path: `cgroupsPath` is `slice:prefix:name`, the
//! unit `prefix-name.scope` below the expanded slice.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxResources, Spec};

use super::devices::DeviceRules;
use super::limits_v2::{io_weight, swap_max, weight_from_shares};
use super::{Error, scope_devices, scope_unified};

const ANNOTATION: &str = "org.systemd.property.";

/// A value of a unit's property, by its D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    U64(u64),
    /// `u`
    U32(u32),
    /// `i`
    I32(i32),
    /// `x`
    I64(i64),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

/// A scope to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopePlan {
    /// `runc-web.scope`.
    pub unit: String,
    /// `system.slice`.
    pub slice: String,
    /// Below the mount: `system.slice/runc-web.scope`; below the user's manager when rootless.
    pub path: PathBuf,
    /// The user's manager instead of the system's.
    pub user: bool,
    /// All but the process.
    pub properties: Vec<(String, Value)>,
}

impl ScopePlan {
    /// Plans the scope of container `id`.
    ///
    /// # Errors
    /// A path not of systemd's form, a property that cannot be.
    pub fn new(
        spec: &Spec,
        wanted: Option<&Path>,
        id: &str,
        rootless: bool,
        resources: &LinuxResources,
        unified: bool,
    ) -> Result<Self, Error> {
        let text = wanted.map(|path| path.to_string_lossy().into_owned());
        let (slice, prefix, name) = split_name(text.as_deref(), id)?;
        let fallback = if rootless { "user.slice" } else { "system.slice" };
        let slice = if slice.is_empty() { fallback.to_owned() } else { slice };
        let unit = if name.ends_with(".slice") { name.clone() } else { format!("{prefix}-{name}.scope") };
        let mut properties = base_properties(&name, &slice);
        properties.extend(limits(resources, unified)?);
        if !rootless {
            // A user's manager may not load device programs.
            let rules = DeviceRules::from_spec(resources.devices().as_deref().unwrap_or_default())?;
            properties.extend(scope_devices::properties(&rules));
        }
        properties.extend(annotated(spec)?);
        let path = expand_slice(&slice)?.join(&unit);
        Ok(Self { unit, slice, path, user: rootless, properties })
    }
}

impl ScopePlan {
    /// The unit is a slice, which holds no process of its own for systemd.
    pub fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }
}

fn split_name(text: Option<&str>, id: &str) -> Result<(String, String, String), Error> {
    let Some(text) = text else { return Ok((String::new(), "runc".to_owned(), id.to_owned())) };
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [slice, prefix, name] if !name.contains('/') => {
            Ok((slice.to_owned(), prefix.to_owned(), name.to_owned()))
        }
        _ => Err(Error::Invalid(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
        ))),
    }
}

/// `a-b.slice` lies in `a.slice`: `a.slice/a-b.slice`.
fn expand_slice(slice: &str) -> Result<PathBuf, Error> {
    let invalid = || Error::Invalid(format!("invalid slice name: {slice}"));
    let stem =
        slice.strip_suffix(".slice").filter(|s| !s.is_empty() && !s.contains('/')).ok_or_else(invalid)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

fn base_properties(name: &str, slice: &str) -> Vec<(String, Value)> {
    let mut properties =
        vec![("Description".to_owned(), Value::Text(format!("libcontainer container {name}")))];
    if name.ends_with(".slice") {
        properties.push(("Wants".to_owned(), Value::Texts(vec![slice.to_owned()])));
    } else {
        properties.push(("Slice".to_owned(), Value::Text(slice.to_owned())));
        properties.push(("Delegate".to_owned(), Value::Bool(true)));
    }
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        properties.push((accounting.to_owned(), Value::Bool(true)));
    }
    properties.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
    properties
}

/// The limits that systemd must know, or it sets its own again at the next reload. All of them are also written by us.
///
/// # Errors
/// Values that contradict each other.
pub fn limits(resources: &LinuxResources, unified: bool) -> Result<Vec<(String, Value)>, Error> {
    let mut properties = Vec::new();
    let mut add = |name: &str, value: u64| properties.push((name.to_owned(), Value::U64(value)));
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().unwrap_or(0);
        if limit != 0 {
            add(if unified { "MemoryMax" } else { "MemoryLimit" }, number(limit));
        }
        if unified {
            if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
                add("MemoryLow", number(reservation));
            }
            if let Some(swap) = swap_max(memory.swap().unwrap_or(0), limit)? {
                add("MemorySwapMax", swap.parse().unwrap_or(u64::MAX));
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, unified, &mut add);
    }
    if let Some(pids) = resources.pids().as_ref().filter(|p| p.limit() != 0) {
        add("TasksMax", number(pids.limit()));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|b| b.weight()).filter(|w| *w != 0) {
        if unified { add("IOWeight", io_weight(weight)) } else { add("BlockIOWeight", weight.into()) }
    }
    if let Some(cpu) = resources.cpu() {
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_deref().filter(|l| !l.is_empty() && unified) {
                properties.push((name.to_owned(), Value::Bytes(bits(list)?)));
            }
        }
    }
    if let Some(files) = resources.unified().as_ref().filter(|_| unified) {
        scope_unified::add(files, &mut properties)?;
    }
    Ok(properties)
}

fn cpu_limits(cpu: &LinuxCpu, unified: bool, add: &mut impl FnMut(&str, u64)) {
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        match (unified, cpu.idle() == Some(1)) {
            // A weight of 0 is systemd's word for idle, which we write ourselves.
            (true, true) => {}
            (true, false) => add("CPUWeight", weight_from_shares(shares)),
            (false, _) => add("CPUShares", shares),
        }
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if period != 0 {
        add("CPUQuotaPeriodUSec", period);
    }
    if quota != 0 || period != 0 {
        add("CPUQuotaPerSecUSec", quota_per_second(quota, period));
    }
}

/// systemd counts in whole per cents of a CPU; rounded up, so that the container's own groups get what they ask for.
pub(super) fn quota_per_second(quota: i64, period: u64) -> u64 {
    let Ok(quota @ 1..) = u64::try_from(quota) else { return u64::MAX };
    let period = if period == 0 { 100_000 } else { period };
    (quota.saturating_mul(1_000_000) / period).div_ceil(10_000) * 10_000
}

/// `0-2,8` as systemd's bit string, lowest byte first.
pub(super) fn bits(list: &str) -> Result<Vec<u8>, Error> {
    let invalid = || Error::Invalid(format!("invalid list of numbers: {list}"));
    let mut bytes: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let from: usize = from.trim().parse().map_err(|_| invalid())?;
        let to: usize = to.trim().parse().map_err(|_| invalid())?;
        if from > to || to > 65_535 {
            return Err(invalid());
        }
        bytes.resize(bytes.len().max(to / 8 + 1), 0);
        for bit in from..=to {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(bytes)
}

/// `org.systemd.property.<Name>` annotations, in GVariant's text form, as far as runc's callers use it.
fn annotated(spec: &Spec) -> Result<Vec<(String, Value)>, Error> {
    let mut properties = Vec::new();
    let mut annotations: Vec<_> = spec.annotations().iter().flatten().collect();
    annotations.sort();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let invalid = |why: &str| Error::Invalid(format!("annotation {key}={text}: {why}"));
        let plain = name.len() >= 3 && name.bytes().all(|b| b.is_ascii_alphabetic());
        if !plain || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Err(invalid("not a property name"));
        }
        let value = parse_value(text).ok_or_else(|| invalid("not a value that is understood"))?;
        // systemd takes seconds on its command line only, the bus knows microseconds.
        properties.push(
            match (
                name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())),
                value,
            ) {
                (Some(stem), value) => {
                    (format!("{stem}USec"), in_microseconds(&value).ok_or_else(|| invalid("not a time"))?)
                }
                (None, value) => (name.to_owned(), value),
            },
        );
    }
    Ok(properties)
}

fn in_microseconds(value: &Value) -> Option<Value> {
    const FACTOR: u64 = 1_000_000;
    let seconds = match value {
        Value::U64(n) => *n,
        Value::U32(n) => u64::from(*n),
        Value::I32(n) => u64::try_from(*n).ok()?,
        Value::I64(n) => u64::try_from(*n).ok()?,
        Value::Text(_)
        | Value::Bool(_)
        | Value::Texts(_)
        | Value::Numbers(_)
        | Value::Bytes(_)
        | Value::Pairs(_) => {
            return None;
        }
    };
    seconds.checked_mul(FACTOR).map(Value::U64)
}

fn parse_value(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(quoted) = quoted(text) {
        return Some(Value::Text(quoted.to_owned()));
    }
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let items: Option<Vec<String>> =
            list.split(',').map(|item| quoted(item.trim()).map(str::to_owned)).collect();
        return items.map(Value::Texts);
    }
    match text.split_once(' ') {
        None if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        None => text.parse().ok().map(Value::I32),
        Some(("uint32", n)) => n.trim().parse().ok().map(Value::U32),
        Some(("uint64", n)) => n.trim().parse().ok().map(Value::U64),
        Some(("int64", n)) => n.trim().parse().ok().map(Value::I64),
        Some(("int32", n)) => n.trim().parse().ok().map(Value::I32),
        Some(_) => None,
    }
}

fn quoted(text: &str) -> Option<&str> {
    let inner = |mark: char| text.strip_prefix(mark).and_then(|t| t.strip_suffix(mark));
    inner('\'').or_else(|| inner('"')).filter(|t| !t.contains(['\'', '"', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slices() {
        assert_eq!(split_name(None, "web").unwrap(), (String::new(), "runc".into(), "web".into()));
        assert!(split_name(Some("/a/b"), "web").is_err());
        for (slice, want) in [
            ("system.slice", Some("system.slice")),
            ("a-b-c.slice", Some("a.slice/a-b.slice/a-b-c.slice")),
            ("-.slice", Some("")),
            ("a--b.slice", None),
            ("a", None),
            ("a/b.slice", None),
        ] {
            assert_eq!(expand_slice(slice).ok(), want.map(PathBuf::from), "{slice}");
        }
    }

    #[test]
    fn values_of_annotations() {
        for (text, want) in [
            ("'a b'", Some(Value::Text("a b".into()))),
            ("true", Some(Value::Bool(true))),
            ("uint64 7", Some(Value::U64(7))),
            ("-3", Some(Value::I32(-3))),
            ("['a', \"b\"]", Some(Value::Texts(vec!["a".into(), "b".into()]))),
            ("{x}", None),
        ] {
            assert_eq!(parse_value(text), want, "{text}");
        }
    }

    #[test]
    fn quotas_round_up_and_lists_become_bits() {
        assert_eq!(quota_per_second(50_000, 100_000), 500_000);
        assert_eq!(quota_per_second(12_345, 100_000), 130_000);
        assert_eq!(quota_per_second(-1, 100_000), u64::MAX);
        assert_eq!(bits("0-2,9").unwrap(), [7, 2]);
        assert!(bits("3-1").is_err());
    }
}
