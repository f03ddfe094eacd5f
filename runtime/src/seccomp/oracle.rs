//! libseccomp and runc as oracles: what would runc's filter answer to this call?
//!
//! libseccomp is asked through a small C program that the test compiles (`oracle.c`); where that is impossible the tests
//! skip. runc's ENOSYS stub is modelled here a second time, after its source rather than after our compiler's ranges.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::arch::{Abi, X32_BIT};
use super::interpreter::{self, Call};
use super::rules::{RET_ENOSYS, action};
use super::{Host, SockFilter};

/// libseccomp's names of the ABIs.
pub const ABIS: [(Abi, &str, &str); 10] = [
    (Abi::X86_64, "x86_64", "x86_64"),
    (Abi::X86, "x86", "x86"),
    (Abi::X32, "x32", "-"),
    (Abi::Aarch64, "aarch64", "aarch64"),
    (Abi::Arm, "arm", "arm"),
    (Abi::Riscv64, "riscv64", "riscv64"),
    (Abi::S390x, "s390x", "s390x"),
    (Abi::S390, "s390", "-"),
    (Abi::Ppc64, "ppc64", "ppc64"),
    (Abi::Ppc64le, "ppc64le", "ppc64le"),
];

/// The compiled helper, or why there is none.
pub fn helper() -> Result<&'static Path, &'static str> {
    static HELPER: OnceLock<Result<(tempfile::TempDir, PathBuf), String>> = OnceLock::new();
    let built = HELPER.get_or_init(|| {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (source, program) = (dir.path().join("oracle.c"), dir.path().join("oracle"));
        fs::write(&source, include_str!("oracle.c")).map_err(|error| error.to_string())?;
        let mut cc = Command::new("cc");
        let cc = cc.arg("-O1").arg("-o").arg(&program).arg(&source).arg("-lseccomp").stderr(Stdio::null());
        match cc.status() {
            Ok(status) if status.success() => Ok((dir, program)),
            _ => Err("no C compiler or no libseccomp headers".to_owned()),
        }
    });
    built.as_ref().map(|(_, program)| program.as_path()).map_err(String::as_str)
}

/// Records a skip for the run's count.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIP {test}: {reason}");
    if let Some(path) = std::env::var_os("CORACLE_SKIPS")
        && let Ok(mut file) = fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "SKIP {test}: {reason}");
    }
}

/// Runs the helper with `input` and gives its output, or its complaint.
pub fn ask(arguments: &[&str], input: &str) -> Result<Vec<u8>, String> {
    let mut child = Command::new(helper().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// libseccomp's numbers of `names`; negative ones are its own inventions.
pub fn numbers(abi: &str, names: &[&str]) -> BTreeMap<String, i64> {
    let output = String::from_utf8(ask(&["numbers", abi], &names.join("\n")).unwrap()).unwrap();
    let line = |line: &str| {
        let (name, number) = line.split_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    output.lines().map(line).collect()
}

/// Decodes a program written in `big_endian` byte order.
pub fn decode(bytes: &[u8], big_endian: bool) -> Vec<SockFilter> {
    let instruction = |bytes: &[u8]| {
        let (code, k) = ([bytes[0], bytes[1]], [bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (code, k) = if big_endian {
            let (code, wide) = (u16::from_be_bytes(code), u32::from_be_bytes(k));
            // Written on another host, libseccomp leaves some return values in the host's order.
            (code, if code == 0x06 && !is_answer(wide) { u32::from_le_bytes(k) } else { wide })
        } else {
            (u16::from_le_bytes(code), u32::from_le_bytes(k))
        };
        SockFilter { code, jt: bytes[2], jf: bytes[3], k }
    };
    bytes.chunks_exact(8).map(instruction).collect()
}

/// A `SECCOMP_RET_*` value that a profile can ask for: only ERRNO and TRACE have a number in their lower half. Without that
/// rule ERRNO with 128 in the wrong byte order would pass for KILL_PROCESS.
fn is_answer(value: u32) -> bool {
    match value >> 16 {
        5 | 0x7ff0 => true,
        0 | 3 | 0x7fc0 | 0x7ffc | 0x7fff | 0x8000 => value & 0xffff == 0,
        _ => false,
    }
}

/// The program as this machine's kernel reads it.
pub fn encode(program: &[SockFilter]) -> Vec<u8> {
    let bytes = |instruction: &SockFilter| {
        let (code, k) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
        [code[0], code[1], instruction.jt, instruction.jf, k[0], k[1], k[2], k[3]]
    };
    program.iter().flat_map(bytes).collect()
}

/// runc's filter for a profile on a machine, as a function.
pub struct Runc {
    pub program: Vec<SockFilter>,
    /// The newest number of each ABI in the filter, where there is a stub.
    newest: Vec<(Abi, u32)>,
    pub abis: Vec<Abi>,
}

impl Runc {
    /// Asks libseccomp for the program; `Err` is its refusal.
    pub fn new(profile: &LinuxSeccomp, host: &Host) -> Result<Self, String> {
        let native = Abi::of_machine(&host.machine).unwrap();
        let mut abis = vec![native];
        for arch in profile.architectures().iter().flatten() {
            let abi = Abi::of_profile(*arch, native).unwrap();
            if !abis.contains(&abi) {
                abis.push(abi);
            }
        }
        let input = text(profile, &abis);
        let program = decode(&ask(&["filter"], &input)?, native.is_big_endian());
        if abis.iter().any(|abi| !loads_the_number(&program, abi.audit())) {
            return Err("libseccomp's program compares a number that it did not load".to_owned());
        }
        Ok(Self { program, newest: newest(profile, &abis), abis })
    }

    /// What the filter answers.
    pub fn answer(&self, call: &Call) -> u32 {
        let enosys = |(abi, newest): &(Abi, u32)| {
            let mode = (call.nr & X32_BIT != 0) == (*abi == Abi::X32);
            let x86_64 = matches!(abi, Abi::X86_64 | Abi::X32);
            let setup = matches!(abi, Abi::S390 | Abi::S390x) && call.nr == 0;
            abi.audit() == call.arch && (!x86_64 || mode) && (call.nr > *newest || setup)
        };
        if self.newest.iter().any(enosys) { RET_ENOSYS } else { interpreter::run(&self.program, call) }
    }
}

/// Whether the part of `program` for this architecture begins with the load of the call's number, or answers at once.
fn loads_the_number(program: &[SockFilter], audit: u32) -> bool {
    const LOAD: u16 = 0x20;
    const JUMP: u16 = 0x05;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let chosen = program.iter().position(|step| step.code == JUMP_EQUAL && step.k == audit);
    let Some(mut at) = chosen.map(|at| at + 1 + usize::from(program[at].jt)) else { return true };
    while program[at].code == JUMP {
        at += 1 + usize::try_from(program[at].k).unwrap();
    }
    program[at].code == RETURN || (program[at].code == LOAD && program[at].k == 0)
}

/// What `findLastSyscalls` of runc finds.
fn newest(profile: &LinuxSeccomp, abis: &[Abi]) -> Vec<(Abi, u32)> {
    let permissive = matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    );
    if permissive || profile.default_errno_ret() == Some(38) {
        return Vec::new();
    }
    let names: Vec<&str> =
        profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).map(String::as_str).collect();
    let newest = |abi: &Abi| {
        let max = numbers(name(*abi), &names).into_values().max().unwrap_or(0).max(0);
        (max > 0).then(|| (*abi, u32::try_from(max).unwrap()))
    };
    abis.iter().filter_map(newest).collect()
}

pub fn name(abi: Abi) -> &'static str {
    ABIS.iter().find(|entry| entry.0 == abi).unwrap().1
}

/// The profile as the helper reads it, with runc's treatment of repeated arguments and of rules that repeat the default.
pub fn text(profile: &LinuxSeccomp, abis: &[Abi]) -> String {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut lines = vec![format!("default {default}")];
    lines.extend(abis.iter().map(|abi| format!("arch {}", name(*abi))));
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret());
        if action == default {
            continue;
        }
        let args = rule.args().as_deref().unwrap_or_default();
        let repeated = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
        let one = |arg: &oci_spec::runtime::LinuxSeccompArg| {
            format!(" {} {} {} {}", arg.index(), arg.op() as u32, arg.value(), arg.value_two().unwrap_or(0))
        };
        for name in rule.names() {
            if repeated {
                lines.extend(args.iter().map(|arg| format!("rule {action} {name} 1{}", one(arg))));
            } else {
                let all: String = args.iter().map(one).collect();
                lines.push(format!("rule {action} {name} {}{all}", args.len()));
            }
        }
    }
    lines.join("\n")
}

/// podman's default profile, converted as podman converts it for a container without extra capabilities.
pub fn default_profile(native: Arch, machine: &str) -> Option<LinuxSeccomp> {
    let text = fs::read_to_string("/usr/share/containers/seccomp.json").ok()?;
    let source: serde_json::Value = serde_json::from_str(&text).ok()?;
    let goarch = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let applies = |rule: &serde_json::Value| {
        let list = |key: &str, part: &str| rule[key][part].as_array().cloned().unwrap_or_default();
        let arches = list("includes", "arches");
        list("includes", "caps").is_empty() && (arches.is_empty() || arches.iter().any(|arch| arch == goarch))
    };
    let map = source["archMap"].as_array()?.iter().find(|entry| entry["architecture"] == native.to_string());
    let mut architectures = vec![serde_json::json!(native.to_string())];
    architectures
        .extend(map.and_then(|entry| entry["subArchitectures"].as_array()).into_iter().flatten().cloned());
    let syscalls: Vec<_> = source["syscalls"].as_array()?.iter().filter(|rule| applies(rule)).collect();
    serde_json::from_value(serde_json::json!({ "defaultAction": source["defaultAction"],
        "defaultErrnoRet": source["defaultErrnoRet"], "architectures": architectures, "syscalls": syscalls }))
    .ok()
}
