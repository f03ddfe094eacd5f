//! Our filters against libseccomp's with runc's stub, and against the filter that an installed runc really loads.

use std::collections::BTreeSet;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompOperator as Op};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::arch::{Abi, Syscall, X32_BIT};
use super::interpreter::{self, Call};
use super::oracle::{self, ABIS, Runc};
use super::rules::{self, Answer, Compare};
use super::syscalls::SYSCALLS;
use super::{Host, compile};

fn host(machine: &str) -> Host {
    Host { machine: machine.to_owned(), kernel: "6.18".to_owned() }
}

macro_rules! needs_helper {
    ($test:literal) => {
        if let Err(reason) = oracle::helper() {
            return oracle::skip(concat!("seccomp::oracle_tests::", $test), reason);
        }
    };
}

/// Numbers worth asking: all that exist, their neighbours, and the corners of the space.
fn numbers_to_ask() -> impl Iterator<Item = u32> {
    let corners = [0x3fff_ffff, 0x7fff_ffff, 1 << 31, 0xbfff_ffff, 0xc000_0000, 0xffff_0000, u32::MAX];
    (0..1100).chain(X32_BIT..X32_BIT + 1100).chain(983_038..983_050).chain(corners)
}

/// Arguments worth asking under `profile`: around every value that it compares.
fn arguments_to_ask(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let mut values = BTreeSet::from([0, 1, u64::MAX]);
    for arg in profile.syscalls().iter().flatten().filter_map(|rule| rule.args().as_ref()).flatten() {
        let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
        let near =
            [value, value.wrapping_add(1), value.wrapping_sub(1), value ^ (1 << 32), value & 0xffff_ffff];
        values.extend(near.into_iter().chain([two, two | !value, two & value]));
    }
    let values: Vec<u64> = values.into_iter().collect();
    let all = values.iter().map(|value| [*value; 6]);
    let mixed = (0..3 * values.len()).map(|i| {
        std::array::from_fn(|index| values[(i * (index + 1) + 7 * index + i / values.len()) % values.len()])
    });
    all.chain(mixed).collect()
}

/// Numbers under which the profile's calls arrive on any of its ABIs: arguments matter only there.
fn named_numbers(profile: &LinuxSeccomp, runc: &Runc) -> BTreeSet<u32> {
    let with_args = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.args().as_ref().is_some_and(|a| !a.is_empty()));
    let calls: Vec<Syscall> =
        with_args.flat_map(|rule| rule.names()).filter_map(|name| Syscall::named(name)).collect();
    let of = |abi: &super::arch::Abi| {
        let all =
            calls.iter().flat_map(|call| [abi.number(*call), abi.multiplexed(*call).map(|call| call.0)]);
        all.flatten().collect::<Vec<_>>()
    };
    let multiplexed = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let multiplexed = multiplexed
        .filter_map(|name| Syscall::named(name))
        .flat_map(|call| runc.abis.iter().filter_map(move |abi| abi.multiplexed(call).map(|call| call.0)));
    runc.abis.iter().flat_map(of).chain(multiplexed).collect()
}

/// Compares both filters on everything worth asking; gives the number of questions.
fn agree(profile: &LinuxSeccomp, machine: &str) -> Result<usize, TestCaseError> {
    let ours = compile(profile, &host(machine)).unwrap();
    let runc = Runc::new(profile, &host(machine)).map_err(TestCaseError::reject)?;
    let foreign = 0x4000_0008;
    let mut archs: BTreeSet<u32> = runc.abis.iter().map(|abi| abi.audit()).collect();
    archs.insert(foreign);
    let big_endian = runc.abis[0].is_big_endian();
    let compared = arguments_to_ask(profile);
    let named = named_numbers(profile, &runc);
    let (mut asked, mut differ) = (0_usize, 0_usize);
    for arch in archs {
        for nr in numbers_to_ask() {
            let compared = if named.contains(&nr) { &compared[..] } else { &compared[..1] };
            for args in compared {
                let call = Call { nr, arch, args: *args, big_endian };
                let (our, theirs) = (interpreter::run(&ours.program, &call), runc.answer(&call));
                asked += 1;
                if our != theirs {
                    // libseccomp loses alternatives when it merges ordered comparisons of one call; the rules decide then.
                    prop_assert_eq!(
                        Some(our),
                        rules_decide(profile, &runc, &call),
                        "libseccomp {:#x}: {:?}",
                        theirs,
                        call
                    );
                    differ += 1;
                }
            }
        }
    }
    prop_assert!(differ * 10 < asked, "{} of {}", differ, asked);
    Ok(asked)
}

/// What the rules say word by word where several with comparisons are about this call; `None` for all other calls.
fn rules_decide(profile: &LinuxSeccomp, runc: &Runc, call: &Call) -> Option<u32> {
    let abi = runc
        .abis
        .iter()
        .find(|abi| abi.audit() == call.arch && (**abi == Abi::X32) == (call.nr & X32_BIT != 0))?;
    let default = rules::action(profile.default_action(), profile.default_errno_ret());
    let answers = rules::answers(&rules::resolve(profile).unwrap(), *abi, default);
    let Some(Answer::Rules(rules)) = answers.by_number.get(&call.nr) else { return None };
    let width = if abi.is_32bit() { 0xffff_ffff } else { u64::MAX };
    let holds = |compare: &Compare| {
        let (arg, value) = (call.args[compare.index] & compare.mask & width, compare.value & width);
        match compare.op {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => arg == value,
            Op::ScmpCmpNe => arg != value,
            Op::ScmpCmpLt => arg < value,
            Op::ScmpCmpLe => arg <= value,
            Op::ScmpCmpGe => arg >= value,
            Op::ScmpCmpGt => arg > value,
        }
    };
    let first = rules.iter().find(|rule| rule.compares.iter().all(holds));
    (rules.len() > 1).then(|| first.map_or(default, |rule| rule.action))
}

/// Drops the names whose number libseccomp does not know or has differently: an older one lacks new calls.
fn known_to_libseccomp(mut value: Value) -> Value {
    let names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).collect();
    let mut strange: BTreeSet<String> = BTreeSet::new();
    for (abi, name, _) in ABIS {
        let theirs = oracle::numbers(name, &names);
        let differs = |name: &&&str| {
            let call = Syscall::named(name).unwrap();
            let ours = abi.number(call).map_or(-1, i64::from);
            let theirs = theirs[**name];
            theirs == -1 || (abi.multiplexed(call).is_none() && ours.max(-1) != theirs.max(-1))
        };
        strange.extend(names.iter().filter(differs).map(|name| (*name).to_owned()));
    }
    for rule in value["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| !strange.contains(name.as_str().unwrap()));
    }
    value
}

#[test]
fn numbers_equal_libseccomps() {
    needs_helper!("numbers_equal_libseccomps");
    let names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).collect();
    let mut compared = 0;
    for (abi, name, _) in ABIS {
        for (call, theirs) in oracle::numbers(name, &names) {
            let ours = Syscall::named(&call).and_then(|call| abi.number(call)).map(i64::from);
            if theirs >= 0 && ours.is_some() {
                assert_eq!(ours, Some(theirs), "{name} {call}");
                compared += 1;
            }
        }
    }
    assert!(compared > 3500, "{compared}");
}

#[test]
fn default_profile_on_every_machine() {
    needs_helper!("default_profile_on_every_machine");
    let machines = [
        ("x86_64", Arch::ScmpArchX86_64),
        ("aarch64", Arch::ScmpArchAarch64),
        ("riscv64", Arch::ScmpArchRiscv64),
        ("s390x", Arch::ScmpArchS390x),
        ("ppc64le", Arch::ScmpArchPpc64le),
    ];
    for (machine, arch) in machines {
        let Some(profile) = oracle::default_profile(arch, machine) else {
            return oracle::skip(
                "seccomp::oracle_tests::default_profile_on_every_machine",
                "no podman profile",
            );
        };
        for (default, errno) in [("SCMP_ACT_ERRNO", 38), ("SCMP_ACT_ERRNO", 1), ("SCMP_ACT_TRAP", 0)] {
            let mut value = known_to_libseccomp(serde_json::to_value(&profile).unwrap());
            value["defaultAction"] = json!(default);
            value["defaultErrnoRet"] = json!(errno);
            let asked = agree(&serde_json::from_value(value).unwrap(), machine).unwrap();
            assert!(asked > 4_000, "{machine} {asked}");
        }
    }
}

fn arg() -> impl Strategy<Value = Value> {
    const OPS: &[&str] = &["EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ"];
    let value = prop_oneof![
        0..20_u64,
        any::<u64>(),
        (0..8_u64).prop_map(|v| v << 32),
        Just(0xffff_ffff),
        Just(u64::MAX)
    ];
    (0..6_u64, value.clone(), value, prop::sample::select(OPS)).prop_map(|(index, value, two, op)| {
        json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}") })
    })
}

/// A call gets either one action without comparisons, or one action behind comparisons: for overlapping comparisons with
/// different actions libseccomp promises no order.
fn rules() -> impl Strategy<Value = Vec<Value>> {
    const NAMES: [&str; 20] = [
        "read",
        "write",
        "open",
        "openat",
        "clone",
        "clone3",
        "socket",
        "accept",
        "accept4",
        "sendmmsg",
        "shmat",
        "semtimedop",
        "personality",
        "ioctl",
        "socketcall",
        "ipc",
        "execve",
        "ugetrlimit",
        "setup",
        "close_range",
    ];
    const ACTIONS: &[&str] = &["ALLOW", "ERRNO", "TRAP", "KILL", "KILL_PROCESS", "LOG", "TRACE", "NOTIFY"];
    let args = prop_oneof![Just(Vec::new()), prop::collection::vec(arg(), 1..4)];
    let one = (args, prop::sample::select(ACTIONS), 1..200_u32);
    prop::collection::vec((prop::sample::subsequence(&NAMES[..], 1..6), one), 1..12).prop_map(|rules| {
        let mut seen = BTreeSet::new();
        let mut list = Vec::new();
        for (names, (args, action, errno)) in rules {
            let names: Vec<_> = names.into_iter().filter(|name| seen.insert(*name)).collect();
            let action = if names.contains(&"write") && action == "NOTIFY" { "LOG" } else { action };
            // `socketcall` with comparisons would overlap with `socket`'s index in another rule.
            let multiplexer = names.contains(&"socketcall") || names.contains(&"ipc");
            let args = if multiplexer { Vec::new() } else { args };
            let rule = |args: &[Value]| {
                json!({ "names": names, "action": format!("SCMP_ACT_{action}"),
                "errnoRet": errno, "args": args })
            };
            list.push(rule(&args));
            // The same call once more with other comparisons.
            if args.len() > 1 {
                list.push(rule(&args[1..]));
            }
        }
        list
    })
}

fn profiles() -> impl Strategy<Value = (Value, &'static str)> {
    let machines = [
        ("x86_64", vec!["X86_64", "X86", "X32"]),
        ("aarch64", vec!["AARCH64", "ARM"]),
        ("s390x", vec!["S390X", "S390"]),
        ("ppc64le", vec!["PPC64LE"]),
        ("riscv64", vec!["NATIVE"]),
    ];
    const DEFAULTS: &[&str] = &["ERRNO", "ALLOW", "KILL_PROCESS", "TRAP", "TRACE", "LOG", "KILL"];
    let machine = prop::sample::select(machines.to_vec());
    (machine, prop::sample::select(DEFAULTS), any::<bool>(), any::<u8>(), rules()).prop_map(
        |((machine, archs), default, enosys, mask, rules)| {
            let listed = archs.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            let archs: Vec<_> = listed.map(|(_, arch)| format!("SCMP_ARCH_{arch}")).collect();
            let mut value = json!({ "defaultAction": format!("SCMP_ACT_{default}"), "architectures": archs, "syscalls": rules });
            if enosys {
                value["defaultErrnoRet"] = json!(38);
            }
            (value, machine)
        },
    )
}

/// Whatever the number of the error, in either byte order.
#[test]
fn every_error_number() {
    needs_helper!("every_error_number");
    for (machine, action) in [("s390x", "ERRNO"), ("s390x", "TRACE"), ("x86_64", "ERRNO")] {
        let rule = |(errno, name): (u32, &&str)| json!({ "names": [name], "action": format!("SCMP_ACT_{action}"), "errnoRet": errno, "args": [] });
        let names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).collect();
        let value = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [],
            "syscalls": (1..=255).zip(&names).map(rule).collect::<Vec<_>>() });
        let profile = serde_json::from_value(known_to_libseccomp(value)).unwrap();
        agree(&profile, machine).unwrap();
    }
}

#[test]
fn generated_profiles() {
    needs_helper!("generated_profiles");
    let config = ProptestConfig {
        cases: 64,
        max_shrink_time: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((value, machine) in profiles())| {
        let profile: LinuxSeccomp = serde_json::from_value(value).unwrap();
        agree(&profile, machine)?;
    });
}

/// libseccomp 2.5.4 forgets to load the number where the first call in its order is one that the machine lacks: its program
/// then answers every call with the default. Ours has to do what the profile says, and the oracle has to notice.
#[test]
fn a_call_that_the_machine_lacks_leaves_the_others_alone() {
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    let args = json!([{ "index": 0, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_LE" }]);
    let profile: LinuxSeccomp = serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{ "names": ["ugetrlimit"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["close_range"], "action": "SCMP_ACT_ALLOW", "args": args }] }))
    .unwrap();
    for (machine, abi) in [("aarch64", Abi::Aarch64), ("riscv64", Abi::Riscv64)] {
        let ours = compile(&profile, &host(machine)).unwrap();
        for (nr, first, answer) in [(436, 0, ALLOW), (436, 1, KILL_PROCESS), (63, 0, KILL_PROCESS)] {
            let call = Call { nr, arch: abi.audit(), args: [first; 6], big_endian: false };
            assert_eq!(interpreter::run(&ours.program, &call), answer, "{machine} {nr} {first}");
        }
        if oracle::helper().is_ok() {
            assert!(matches!(agree(&profile, machine), Ok(_) | Err(TestCaseError::Reject(_))), "{machine}");
        }
    }
}
