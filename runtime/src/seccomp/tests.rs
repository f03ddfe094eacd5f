//! What compiled filters answer, asked through an interpreter; libseccomp and runc as oracles are in `oracle`.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::interpreter::{self, Call};
use super::{Error, Filter, Host, SockFilter, compile, compile_cached};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const S390X: u32 = 0x8000_0016;

fn run(program: &[SockFilter], nr: u32, arch: u32, big_endian: bool, args: [u64; 6]) -> u32 {
    interpreter::run(program, &Call { nr, arch, args, big_endian })
}

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

fn host(machine: &str) -> Host {
    Host { machine: machine.to_owned(), kernel: "6.18".to_owned() }
}

fn x86_64(value: Value) -> Result<Filter, Error> {
    compile(&profile(value), &host("x86_64"))
}

fn ask(filter: &Filter, nr: u32, args: [u64; 6]) -> u32 {
    run(&filter.program, nr, X86_64, false, args)
}

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}

#[test]
fn an_allow_list_with_its_enosys_stub() {
    let filter = x86_64(json!({ "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": ["read", "openat2", "nonsense"], "action": "SCMP_ACT_ALLOW" }] }))
    .unwrap();
    let table = [(0, ALLOW), (1, EPERM), (436, EPERM), (437, ALLOW), (438, ENOSYS), (0x3fff_ffff, ENOSYS)];
    for (nr, answer) in table {
        assert_eq!(ask(&filter, nr, [0; 6]), answer, "{nr}");
    }
    assert_eq!(ask(&filter, 1 << 30, [0; 6]), KILL, "x32 is not in the profile");
    assert_eq!(ask(&filter, u32::MAX, [0; 6]), EPERM, "-1 is a tracer's skip");
    assert_eq!(run(&filter.program, 0, X86, false, [0; 6]), KILL);
    assert_eq!(filter.warnings, ["unknown seccomp syscall \"nonsense\" ignored"]);
}

#[test]
fn no_stub_where_the_default_lets_through_or_is_enosys() {
    for head in [
        json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
        json!({ "defaultAction": "SCMP_ACT_LOG" }),
        json!({ "defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 7 }),
    ] {
        let mut value = head.clone();
        value["syscalls"] = json!([{ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 }]);
        let filter = x86_64(value).unwrap();
        assert_eq!(ask(&filter, 0, [0; 6]), 0x0005_0005);
        assert_ne!(ask(&filter, 400, [0; 6]), ENOSYS, "{head}");
    }
}

#[test]
fn comparisons_use_both_halves() {
    const BIG: u64 = 0x1_0000_0005;
    type Samples = &'static [(u64, bool)];
    let table: [(&str, u64, Samples); 7] = [
        ("SCMP_CMP_EQ", BIG, &[(BIG, true), (5, false), (BIG + 1, false)]),
        ("SCMP_CMP_NE", BIG, &[(BIG, false), (5, true), (0x2_0000_0005, true)]),
        ("SCMP_CMP_LT", BIG, &[(BIG - 1, true), (BIG, false), (u64::MAX, false), (0xffff_ffff, true)]),
        ("SCMP_CMP_LE", BIG, &[(BIG, true), (BIG + 1, false), (0xffff_ffff, true), (0x2_0000_0000, false)]),
        ("SCMP_CMP_GE", BIG, &[(BIG, true), (BIG - 1, false), (0xffff_ffff, false), (0x2_0000_0000, true)]),
        ("SCMP_CMP_GT", BIG, &[(BIG, false), (BIG + 1, true), (6, false), (0x2_0000_0000, true)]),
        (
            "SCMP_CMP_MASKED_EQ",
            0xff_0000_00f0,
            &[(0x12_0000_0034, true), (0x12_0000_0044, false), (0x34, false)],
        ),
    ];
    for (machine, arch, nr, big_endian) in [("x86_64", X86_64, 0, false), ("s390x", S390X, 3, true)] {
        for (op, value, samples) in table {
            let filter = compile(
                &profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 0, "value": value, "valueTwo": 0x12_0000_0030_u64, "op": op }] }] })),
                &host(machine),
            )
            .unwrap();
            for (sample, holds) in samples {
                let answer = run(&filter.program, nr, arch, big_endian, first(*sample));
                assert_eq!(answer == ALLOW, *holds, "{machine} {sample:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn a_repeated_argument_makes_alternatives() {
    let arg = |index: u64, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let rules = |args: Value| {
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"],
        "action": "SCMP_ACT_ALLOW", "args": args }] })
    };
    let or = x86_64(rules(json!([arg(0, 1), arg(0, 2), arg(1, 9)]))).unwrap();
    let and = x86_64(rules(json!([arg(0, 1), arg(1, 9)]))).unwrap();
    let table =
        [([1, 0], ALLOW, EPERM), ([2, 0], ALLOW, EPERM), ([0, 9], ALLOW, EPERM), ([1, 9], ALLOW, ALLOW)];
    for ([a, b], with_or, with_and) in table {
        assert_eq!(ask(&or, 0, [a, b, 0, 0, 0, 0]), with_or, "or {a} {b}");
        assert_eq!(ask(&and, 0, [a, b, 0, 0, 0, 0]), with_and, "and {a} {b}");
    }
}

#[test]
fn a_rule_without_comparisons_decides_and_the_first_of_two_wins() {
    let filter = x86_64(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] },
        { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["read"], "action": "SCMP_ACT_KILL_PROCESS" }] }))
    .unwrap();
    assert_eq!(ask(&filter, 0, first(1)), ALLOW);
}

#[test]
fn multiplexed_calls_are_answered_in_both_forms() {
    let filter = x86_64(
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["socket", "shmat", "memfd_secret"], "action": "SCMP_ACT_ALLOW" }] }),
    )
    .unwrap();
    let x86 = |nr, args| run(&filter.program, nr, X86, false, args);
    assert_eq!(x86(359, [0; 6]), ALLOW, "socket");
    assert_eq!(x86(102, first(1)), ALLOW, "socketcall(SYS_SOCKET)");
    assert_eq!(x86(102, first(0xffff_ffff_0000_0001)), ALLOW, "only the lower half on 32 bits");
    assert_eq!(x86(102, first(2)), EPERM, "socketcall(SYS_BIND)");
    assert_eq!(x86(117, first(21)), ALLOW, "ipc(SHMAT)");
    assert_eq!(x86(447, [0; 6]), ALLOW, "memfd_secret");
    assert_eq!(ask(&filter, 41, [0; 6]), ALLOW);
}

#[test]
fn x32_beside_x86_64() {
    let filter = x86_64(
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": ["read", "execve"], "action": "SCMP_ACT_ALLOW" }] }),
    )
    .unwrap();
    let table = [(0, ALLOW), (59, ALLOW), (60, ENOSYS), (1 << 30, ALLOW), ((1 << 30) + 520, ALLOW)];
    let more = [((1 << 30) + 59, EPERM), ((1 << 30) + 521, ENOSYS), (1 << 31, ENOSYS), (u32::MAX, ENOSYS)];
    for (nr, answer) in table.into_iter().chain(more) {
        assert_eq!(ask(&filter, nr, [0; 6]), answer, "{nr:#x}");
    }
}

#[test]
fn what_runc_refuses() {
    let rule = |names: Value, action: &str| {
        json!({ "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": names, "action": action }] })
    };
    assert!(matches!(x86_64(rule(json!(["write"]), "SCMP_ACT_NOTIFY")), Err(Error::NotifyWrite)));
    assert!(matches!(x86_64(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })), Err(Error::NotifyDefault)));
    assert!(matches!(x86_64(rule(json!([""]), "SCMP_ACT_ALLOW")), Err(Error::EmptyName)));
    let waits =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] });
    assert!(matches!(x86_64(waits), Err(Error::WaitKillableWithoutListener)));
    let index = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }] });
    assert!(matches!(x86_64(index), Err(Error::ArgumentIndex { index: 6, .. })));
    assert!(matches!(
        compile(&profile(json!({ "defaultAction": "SCMP_ACT_ALLOW" })), &host("vax")),
        Err(Error::HostArch(_))
    ));
}

#[test]
fn flags() {
    let with = |flags: Value, action: &str| {
        let mut value = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": action }] });
        if !flags.is_null() {
            value["flags"] = flags;
        }
        let filter = x86_64(value).unwrap();
        (filter.flags, filter.notify)
    };
    assert_eq!(with(Value::Null, "SCMP_ACT_ERRNO"), (0b100, false), "SPEC_ALLOW by default");
    assert_eq!(with(json!([]), "SCMP_ACT_ERRNO"), (0, false));
    assert_eq!(with(json!(["SECCOMP_FILTER_FLAG_LOG"]), "SCMP_ACT_ERRNO"), (0b10, false));
    let tsync_and_wait = json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    assert_eq!(with(tsync_and_wait, "SCMP_ACT_NOTIFY"), (0b10_1000, true));
}

/// Thousands of rules: jumps of more than 255 instructions must still arrive.
#[test]
fn long_jumps_and_the_limit() {
    let rules = |count: u64| {
        let names: Vec<&str> =
            super::syscalls::SYSCALLS.iter().filter(|row| row.1[0] >= 0).map(|row| row.0).collect();
        let rule = |n: u64| {
            json!({ "names": [names[n as usize % names.len()]], "action": "SCMP_ACT_ERRNO", "errnoRet": n % 4000,
            "args": [{ "index": n % 6, "value": n << 20, "op": "SCMP_CMP_EQ" }] })
        };
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": (0..count).map(rule).collect::<Vec<_>>() })
    };
    let filter = x86_64(rules(600)).unwrap();
    assert!(filter.program.len() > 2000, "{}", filter.program.len());
    for n in 0..600_u64 {
        let names = super::syscalls::SYSCALLS.iter().filter(|row| row.1[0] >= 0);
        let row = names.collect::<Vec<_>>();
        let nr = u32::try_from(row[n as usize % row.len()].1[0]).unwrap();
        let mut args = [1; 6];
        args[(n % 6) as usize] = n << 20;
        assert_eq!(ask(&filter, nr, args), 0x0005_0000 | (n as u32 % 4000), "rule {n}");
        assert_eq!(ask(&filter, nr, [1; 6]), ALLOW);
    }
    assert!(matches!(x86_64(rules(1500)), Err(Error::TooLong(4097..))));
}

/// What `seccomp_is_const_allow` of the kernel can follow, for calls that are always allowed.
#[test]
fn the_kernels_bitmap_can_follow_the_part_before_arguments() {
    let filter = x86_64(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["read", "write", "close"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }] }))
    .unwrap();
    for nr in [0, 1, 3] {
        let (mut pc, mut a) = (0, 0);
        let answer = loop {
            let SockFilter { code, jt, jf, k } = filter.program[pc];
            pc += 1;
            match (code, k) {
                (0x20, 0) => a = nr,
                (0x20, 4) => a = X86_64,
                (0x06, _) => break k,
                (0x05, _) => pc += k as usize,
                (0x15, _) => pc += usize::from(if a == k { jt } else { jf }),
                (0x35, _) => pc += usize::from(if a >= k { jt } else { jf }),
                _ => panic!("{code:#x} {k:#x} is beyond the kernel's emulator"),
            }
        };
        assert_eq!(answer, ALLOW);
    }
}

#[test]
fn other_machines_have_themselves_as_default_architecture() {
    let value = json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_MIPS"],
        "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
    let filter = compile(&profile(value), &host("aarch64")).unwrap();
    assert_eq!(run(&filter.program, 63, AARCH64, false, [0; 6]), ALLOW);
    assert_eq!(run(&filter.program, 64, AARCH64, false, [0; 6]), ENOSYS);
    assert_eq!(filter.warnings, ["seccomp architecture SCMP_ARCH_MIPS ignored: this host never presents it"]);
}

mod cache {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn example() -> LinuxSeccomp {
        profile(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }, { "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
        )
    }

    #[test]
    fn gives_back_what_was_compiled_and_keys_by_profile_and_host() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/seccomp");
        let fresh = compile(&example(), &host("x86_64")).unwrap();
        for _ in 0..2 {
            assert_eq!(compile_cached(&example(), &host("x86_64"), &cache).unwrap(), fresh);
        }
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
        let mut newer = host("x86_64");
        newer.kernel = "6.19".to_owned();
        compile_cached(&example(), &newer, &cache).unwrap();
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
    }

    #[test]
    fn a_changed_file_is_compiled_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("seccomp");
        let fresh = compile_cached(&example(), &host("x86_64"), &cache).unwrap();
        let path = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(compile_cached(&example(), &host("x86_64"), &cache).unwrap(), fresh, "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), good, "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 3]).unwrap();
        assert_eq!(compile_cached(&example(), &host("x86_64"), &cache).unwrap(), fresh);
    }

    #[test]
    fn a_directory_open_to_others_or_a_link_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        for cache in [&open, &link] {
            let filter = compile_cached(&example(), &host("x86_64"), cache).unwrap();
            assert_eq!(filter.warnings.len(), 1);
            assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
        }
    }
}
