//! `linux.resources.unified` in systemd's words, where it has them: what systemd does not know of a file that it manages it
//! sets back at the next reload.

use std::collections::HashMap;

use super::Error;
use super::scope::{Value, bits, quota_per_second};

/// Files of one number and their properties.
const NUMBERS: &[(&str, &str)] = &[
    ("cpu.weight", "CPUWeight"),
    ("io.weight", "IOWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.zswap.max", "MemoryZSwapMax"),
    ("pids.max", "TasksMax"),
];

/// Adds the properties of `files`; one that was there already is replaced, as the file is when it is written last.
///
/// # Errors
/// A value that the kernel would not take either.
pub fn add(files: &HashMap<String, String>, properties: &mut Vec<(String, Value)>) -> Result<(), Error> {
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort();
    let mut found = Vec::new();
    for (file, text) in sorted {
        let text = text.trim();
        let invalid = || Error::Invalid(format!("unified resource {file:?}: {text:?} is not a value of it"));
        if let Some((_, property)) = NUMBERS.iter().find(|(name, _)| name == file) {
            // `io.weight` is known by its default; the rest of it is one device a line.
            let number = text.strip_prefix("default ").unwrap_or(text);
            let number = if number == "max" { Some(u64::MAX) } else { number.parse().ok() };
            match number {
                Some(number) => found.push(((*property).to_owned(), Value::U64(number))),
                None if file == "io.weight" => {}
                None => return Err(invalid()),
            }
        }
        match file.as_str() {
            "cpu.max" => found.extend(cpu_max(text).ok_or_else(invalid)?),
            // systemd's word for an idle group is a weight of 0 (252).
            "cpu.idle" if text == "1" => found.push(("CPUWeight".to_owned(), Value::U64(0))),
            "cpuset.cpus" => found.push(("AllowedCPUs".to_owned(), Value::Bytes(bits(text)?))),
            "cpuset.mems" => found.push(("AllowedMemoryNodes".to_owned(), Value::Bytes(bits(text)?))),
            _ => {}
        }
    }
    properties.retain(|(name, _)| !found.iter().any(|(new, _)| new == name));
    properties.extend(found);
    Ok(())
}

fn cpu_max(text: &str) -> Option<[(String, Value); 2]> {
    let (quota, period) = text.split_once(' ').unwrap_or((text, "100000"));
    let period: u64 = period.trim().parse().ok()?;
    let quota: i64 = if quota == "max" { -1 } else { quota.parse().ok()? };
    Some([
        ("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)),
        ("CPUQuotaPerSecUSec".to_owned(), Value::U64(quota_per_second(quota, period))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_properties() {
        let files = [
            ("memory.high", "1000"),
            ("pids.max", "max"),
            ("cpu.max", "5000 10000"),
            ("io.weight", "8:0 50"),
            ("hugetlb.2MB.max", "0"),
        ];
        let files = files.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let mut properties = vec![("TasksMax".to_owned(), Value::U64(7))];
        add(&files, &mut properties).unwrap();
        let want = [
            ("CPUQuotaPeriodUSec", 10_000),
            ("CPUQuotaPerSecUSec", 500_000),
            ("MemoryHigh", 1000),
            ("TasksMax", u64::MAX),
        ];
        assert_eq!(properties, want.map(|(name, value)| (name.to_owned(), Value::U64(value))));
        let broken = [("memory.max".to_owned(), "lots".to_owned())].into_iter().collect();
        assert!(add(&broken, &mut properties).is_err());
    }
}
