//! `update`: new limits for a container, from flags or a document.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources};

use super::container::{Container, lock};
use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb, group};
use crate::state::{Record, Status};

const RESOURCES_LIMIT: u64 = 4 << 20;

pub const VERB: Verb = Verb {
    name: "update",
    usage: "update container resource constraints",
    arguments: "<container-id>",
    description: "",
    flags: &[
        Flag::new(
            &["resources", "r"],
            FlagKind::Text,
            "path to the file containing the resources to update or '-' to read from the standard input;\n      it holds linux.resources of config.json, unchanged values can be omitted, and all other options are ignored",
        ),
        Flag::new(&["blkio-weight"], FlagKind::Int, "Specifies per cgroup weight, range is from 10 to 1000"),
        text(
            &["cpu-period"],
            "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default",
        ),
        text(&["cpu-quota"], "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"),
        text(
            &["cpu-burst"],
            "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period",
        ),
        text(&["cpu-share"], "CPU shares (relative weight vs. other containers)"),
        text(
            &["cpu-rt-period"],
            "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default",
        ),
        text(
            &["cpu-rt-runtime"],
            "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period",
        ),
        text(&["cpuset-cpus"], "CPU(s) to use"),
        text(&["cpuset-mems"], "Memory node(s) to use"),
        text(&["kernel-memory"], "(obsoleted; do not use)"),
        text(&["kernel-memory-tcp"], "(obsoleted; do not use)"),
        text(&["memory"], "Memory limit (in bytes)"),
        text(&["cpu-idle"], "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"),
        text(&["memory-reservation"], "Memory reservation or soft_limit (in bytes)"),
        text(&["memory-swap"], "Total memory usage (memory + swap); set '-1' to enable unlimited swap"),
        Flag::new(&["pids-limit"], FlagKind::Int, "Maximum number of pids allowed in the container"),
        text(&["l3-cache-schema"], "The string of Intel RDT/CAT L3 cache schema"),
        text(&["mem-bw-schema"], "The string of Intel RDT/MBA memory bandwidth schema"),
    ],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

const fn text(names: &'static [&'static str], help: &'static str) -> Flag {
    Flag::new(names, FlagKind::Text, help)
}

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    let wanted = match words.text("resources") {
        Some(source) => read_resources(source)?,
        None => from_flags(words)?,
    };
    if wanted.memory().as_ref().is_some_and(has_kernel_memory) {
        context.log.warn("Kernel memory settings are ignored and will be removed");
    }
    check_intel_rdt(&container.record, words)?;
    if container.status()? == Status::Stopped {
        return Err(Error::Refused("container not running".to_owned()));
    }
    crate::fault::point("update.lock")?;
    let dir = lock(&context.store(), &container.record.id)?;
    let mut record = dir.load()?;
    let effective = effective(&record, wanted);
    group::update(&record, &effective).map_err(Error::Group)?;
    remember(&mut record, &effective);
    crate::fault::point("update.save")?;
    dir.save(&record)?;
    Ok(0)
}

#[allow(deprecated)]
fn has_kernel_memory(memory: &LinuxMemory) -> bool {
    memory.kernel().is_some() || memory.kernel_tcp().is_some()
}

fn read_resources(source: &str) -> Result<LinuxResources, Error> {
    let path = Path::new(if source == "-" { "/dev/stdin" } else { source });
    let mut bytes = Vec::new();
    let read = if source == "-" {
        std::io::stdin().lock().take(RESOURCES_LIMIT).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(RESOURCES_LIMIT).read_to_end(&mut bytes))
    };
    read.map_err(Error::io("open", path))?;
    crate::spec::parse_resources(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}

fn from_flags(words: &Parsed) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(number(words, "cpu-share")?);
    cpu.set_quota(number(words, "cpu-quota")?);
    cpu.set_burst(number(words, "cpu-burst")?);
    cpu.set_period(number(words, "cpu-period")?);
    cpu.set_realtime_period(number(words, "cpu-rt-period")?);
    cpu.set_realtime_runtime(number(words, "cpu-rt-runtime")?);
    cpu.set_idle(number(words, "cpu-idle")?);
    cpu.set_cpus(words.text("cpuset-cpus").map(str::to_owned));
    cpu.set_mems(words.text("cpuset-mems").map(str::to_owned));
    resources.set_cpu(Some(cpu));
    let mut memory = LinuxMemory::default();
    memory.set_limit(size(words, "memory")?);
    memory.set_reservation(size(words, "memory-reservation")?);
    memory.set_swap(size(words, "memory-swap")?);
    resources.set_memory(Some(memory));
    if let Some(weight) = words.int("blkio-weight").filter(|weight| *weight != 0) {
        let mut block_io = LinuxBlockIo::default();
        let weight = u16::try_from(weight).map_err(|_| invalid("blkio-weight", "value out of range"))?;
        block_io.set_weight(Some(weight));
        resources.set_block_io(Some(block_io));
    }
    if let Some(limit) = words.int("pids-limit") {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn number<T: std::str::FromStr>(words: &Parsed, name: &str) -> Result<Option<T>, Error> {
    let Some(text) = words.text(name) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| invalid(name, &format!("parsing {}: invalid syntax", crate::log::go_quote(text))))
}

fn size(words: &Parsed, name: &str) -> Result<Option<i64>, Error> {
    match words.text(name) {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => {
            ram_in_bytes(text).map(Some).ok_or_else(|| invalid(name, &format!("invalid size: '{text}'")))
        }
    }
}

fn invalid(name: &str, why: &str) -> Error {
    Error::Usage(format!("invalid value for {name}: {why}"))
}

/// go-units' `RAMInBytes`: a number, maybe a fraction, and a unit of 1,024: `10m`, `1.5GiB`, `4 kb`.
fn ram_in_bytes(text: &str) -> Option<i64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim_end().parse().ok().filter(|n: &f64| *n >= 0.0)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let prefix = match unit.as_str() {
        "" | "b" => "",
        unit => unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit),
    };
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    #[allow(clippy::cast_possible_truncation)]
    Some((number * 1024_f64.powi(power)) as i64)
}

/// runc's corrections: what one value of a pair implies for the other.
fn effective(record: &Record, mut wanted: LinuxResources) -> LinuxResources {
    if let Some(mut memory) = *wanted.memory()
        && memory.limit() == Some(-1)
        && memory.swap().is_none()
    {
        // A memory limit without bounds must not be below a swap limit that stays.
        memory.set_swap(Some(-1));
        wanted.set_memory(Some(memory));
    }
    let Some(mut cpu) = wanted.cpu().clone() else { return wanted };
    let old = record.spec.linux().as_ref().and_then(|l| l.resources().as_ref()).and_then(|r| r.cpu().clone());
    let (quota, period) = (cpu.quota().filter(|q| *q != 0), cpu.period().filter(|p| *p != 0));
    // Both are written together on v2 and under systemd: the one that is not given stays as it was.
    match (quota, period) {
        (Some(_), None) => {
            cpu.set_period(old.as_ref().and_then(LinuxCpu::period));
        }
        (None, Some(_)) => {
            cpu.set_quota(old.as_ref().and_then(LinuxCpu::quota));
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    wanted.set_cpu(Some(cpu));
    wanted
}

fn check_intel_rdt(record: &Record, words: &Parsed) -> Result<(), Error> {
    if !words.is_set("l3-cache-schema") && !words.is_set("mem-bw-schema") {
        return Ok(());
    }
    let configured: Option<&LinuxIntelRdt> =
        record.spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref());
    Err(Error::Refused(
        if !Path::new("/sys/fs/resctrl/schemata").exists() && words.is_set("l3-cache-schema") {
            "Intel RDT/CAT: l3 cache schema is not enabled"
        } else if !Path::new("/sys/fs/resctrl/schemata").exists() {
            "Intel RDT/MBA: memory bandwidth schema is not enabled"
        } else if configured.is_none() {
            "updating a non-existent Intel RDT configuration is not supported"
        } else {
            "updating an Intel RDT configuration is not supported"
        }
        .to_owned(),
    ))
}

/// Lays the new values over the recorded ones, property by property.
fn remember(record: &mut Record, new: &LinuxResources) {
    let Some(linux) = record.spec.linux_mut() else { return };
    let old = linux.resources().clone().unwrap_or_default();
    let (Ok(mut merged), Ok(new)) = (serde_json::to_value(&old), serde_json::to_value(new)) else { return };
    overlay(&mut merged, new);
    if let Ok(resources) = serde_json::from_value(merged) {
        linux.set_resources(Some(resources));
    }
}

fn overlay(old: &mut serde_json::Value, new: serde_json::Value) {
    match (old, new) {
        (serde_json::Value::Object(old), serde_json::Value::Object(new)) => {
            for (key, value) in new {
                overlay(old.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (_, serde_json::Value::Null) => {}
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::flags;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32k", Some(32 << 10)),
            ("32 kB", Some(32 << 10)),
            ("32MiB", Some(32 << 20)),
            ("1.5g", Some(3 << 29)),
            ("x", None),
            ("-3", None),
            ("3x", None),
        ] {
            assert_eq!(ram_in_bytes(text), want, "{text}");
        }
    }

    #[test]
    fn flags_to_resources() {
        let words = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            flags::parse(VERB.flags, &words).unwrap()
        };
        let resources =
            from_flags(&words("--memory 10m --pids-limit 5 --cpu-share 7 --cpuset-cpus 0-1 c")).unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(10 << 20));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 5);
        assert_eq!(resources.cpu().as_ref().unwrap().shares(), Some(7));
        assert!(resources.devices().is_none());
        let error = from_flags(&words("--cpu-quota x c")).unwrap_err();
        assert_eq!(error.to_string(), "invalid value for cpu-quota: parsing \"x\": invalid syntax");
    }

    #[test]
    fn documents_lie_over_each_other() {
        let mut old = serde_json::json!({"a": {"b": 1, "c": 2}});
        overlay(&mut old, serde_json::json!({"a": {"b": 3, "c": null}, "d": [1]}));
        assert_eq!(old, serde_json::json!({"a": {"b": 3, "c": 2}, "d": [1]}));
    }
}
