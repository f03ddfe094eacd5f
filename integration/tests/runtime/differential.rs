//! The same bundle through runc and through `coracle`: output, exit code, `state` and the inside view must be equal.
//!
//! A difference that stays is listed in [`ACCEPTED`] with its reason, and in docs/compatibility.md for users.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use coracle_integration::console::{ConsoleSocket, call_on_terminal, read_to_end};
use coracle_integration::{Bundle, Container, Outcome, Runtime, inside, require_root, wait};
use serde_json::{Value, json};

/// Differences that are meant: case (`*` for all), a part of the line, reason.
const ACCEPTED: &[(&str, &str, &str)] = &[
    (
        "*",
        "fds: coracle: 0 -> /dev/null",
        "the foreground program gets the caller's descriptors, not pipes that are copied",
    ),
    ("*", "fds: coracle: 1 -> output file", "the caller's own file, see the row above"),
    ("*", "fds: coracle: 2 -> output file", "the caller's own file, see the row above"),
    ("*", "fds: runc: 0 -> pipe", "runc's side of the same difference"),
    ("*", "fds: runc: 1 -> pipe", "runc's side of the same difference"),
    ("*", "fds: runc: 2 -> pipe", "runc's side of the same difference"),
    ("*", "dev: coracle: drwxrwxrwt root root  mqueue", "the container's root owns it by group too"),
    ("*", "dev: runc: drwxrwxrwt root 65534  mqueue", "runc's side: made before its group is root's"),
    ("*", "/proc/acpi ro,relatime", "masked directories are limited in size and inodes, as newer runc does"),
    ("*", "/sys/firmware ro,relatime", "the same limit on masked directories"),
    ("masked_and_read_only_paths", "/home ro,", "the same limit on masked directories"),
    (
        "*",
        "/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime",
        "asked for as ro, which runc 1.1.5 does not do for this tmpfs",
    ),
    (
        "*",
        "/sys/fs/cgroup rw,nosuid,nodev,noexec,relatime",
        "the other side of that difference: runc's tmpfs stays rw",
    ),
    ("*", "ociVersion", "the version of the specification that each runtime implements"),
];

/// How the bundle is used.
enum How {
    Run,
    RunOnTerminal,
    /// `run --detach` of a sleeper, then `state`.
    Detached,
    /// `create` and `state` before the start.
    Created,
    ConsoleSocket,
    /// A sleeper, then `exec` with these flags and this command line.
    Exec(&'static [&'static str], &'static [&'static str]),
    ExecOnTerminal(&'static [&'static str]),
    /// A configuration that must be refused; both errors mention these words.
    Refused(&'static [&'static str]),
}

/// What one runtime shows of a case, as sections of comparable lines.
fn observe(runtime: &Runtime, edit: fn(&mut Bundle), how: &How) -> String {
    let container = match how {
        How::Detached | How::Exec(..) | How::ExecOnTerminal(_) => Container::sleeping(runtime, edit),
        _ => Container::edited(runtime, edit),
    };
    let outcome = match how {
        How::Run | How::Refused(_) => container.run(),
        How::RunOnTerminal => {
            let bundle = container.bundle.path.to_string_lossy().into_owned();
            call_on_terminal(container.command(&["run", "--bundle", &bundle, &container.id]), wait::PATIENCE)
        }
        How::Detached => container.call(&["state", &container.id]),
        How::Created => {
            container.create(&[]).expect_success();
            container.call(&["state", &container.id])
        }
        How::ConsoleSocket => on_console_socket(&container),
        How::Exec(flags, args) => container.exec(flags, args),
        How::ExecOnTerminal(args) => {
            let mut all = vec!["exec", "--tty", container.id.as_str()];
            all.extend(*args);
            call_on_terminal(container.command(&all), wait::PATIENCE)
        }
    };
    let text = describe(&outcome, how, runtime);
    let text =
        if matches!(how, How::Detached | How::Created) { comparable_state(&outcome, &text) } else { text };
    let view = inside::normalise(&text, &container.id, &container.directory().to_string_lossy());
    container.finish();
    view
}

fn describe(outcome: &Outcome, how: &How, runtime: &Runtime) -> String {
    assert!(!outcome.timed_out, "{} did not end: {outcome:#?}", runtime.name);
    let mut text = outcome.stdout.clone();
    if let How::Refused(words) = how {
        assert!(!outcome.success(), "{} accepted it: {outcome:#?}", runtime.name);
        let error = outcome.stderr.to_lowercase();
        for word in *words {
            assert!(error.contains(word), "{} does not mention {word}: {}", runtime.name, outcome.stderr);
        }
        text.clear();
    }
    text.push_str(&format!("\n== exit code\n{:?}\n", outcome.code));
    text
}

/// The members of `state`, without what differs from run to run.
fn comparable_state(outcome: &Outcome, text: &str) -> String {
    let parsed: Result<BTreeMap<String, Value>, _> = serde_json::from_str(&outcome.stdout);
    let Ok(mut state) = parsed else { return text.to_owned() };
    for volatile in ["pid", "created"] {
        let value = state.insert(volatile.to_owned(), json!("there"));
        assert!(
            value.is_some_and(|value| value != json!(0) && value != json!("")),
            "state lacks {volatile}: {text}"
        );
    }
    state.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
}

fn on_console_socket(container: &Container) -> Outcome {
    let socket = ConsoleSocket::create(container.directory());
    let path = socket.path.to_string_lossy().into_owned();
    let receiver = std::thread::spawn(move || socket.receive());
    container.run_with(&["--detach", "--console-socket", &path]).expect_success();
    let (mut terminal, name) = receiver.join().expect("console socket");
    assert!(!name.is_empty(), "no name came with the terminal");
    let stdout = read_to_end(&mut terminal);
    Outcome { stdout, code: Some(0), ..Outcome::default() }
}

#[track_caller]
fn compare(case: &str, edit: fn(&mut Bundle), how: &How) {
    let (oracle, subject) = (Runtime::oracle(), Runtime::subject());
    let expected = observe(&oracle, edit, how);
    let found = observe(&subject, edit, how);
    let differences = inside::differences([&subject.name, &oracle.name], [&found, &expected]);
    let unexplained: Vec<_> = differences.into_iter().filter(|line| !is_accepted(case, line)).collect();
    assert!(unexplained.is_empty(), "{case} differs:\n{}", unexplained.join("\n"));
}

fn is_accepted(case: &str, line: &str) -> bool {
    // The filter of `CORACLE_TEST_DENY` shows in its descendants.
    if line.contains("Seccomp") && Runtime::subject().deny.is_some() {
        return true;
    }
    ACCEPTED.iter().any(|(name, part, _)| (*name == "*" || *name == case) && line.contains(part))
}

/// One test a bundle.
macro_rules! bundles {
    ($($name:ident, $how:expr, $edit:expr;)*) => {$(
        #[test]
        fn $name() {
            require_root!();
            compare(stringify!($name), $edit, &$how);
        }
    )*};
}

bundles! {
    default_bundle, How::Run, |b| { b.script(inside::SCRIPT); };
    user_namespace, How::Run, |b| { b.script(inside::SCRIPT).user_namespace(); };
    writable_root, How::Run, |b| {
        b.script("touch /x && ls /x; mount | grep ' / '| cut -d' ' -f3-").set("/root/readonly", json!(false));
    };
    read_only_root, How::Run, |b| { b.script("touch /x; echo $?; touch /dev/shm/y && ls /dev/shm"); };
    exit_code, How::Run, |b| { b.script("exit 37"); };
    killed_by_signal, How::Run, |b| { b.script("sh -c 'kill -9 $$'; echo $?; kill -TERM $$; exit 3"); };
    terminal, How::RunOnTerminal, |b| { b.script(inside::SCRIPT).set("/process/terminal", json!(true)); };
    terminal_size, How::RunOnTerminal, |b| {
        b.script("tty; stty size").set("/process/terminal", json!(true))
            .set("/process/consoleSize", json!({"height": 33, "width": 101}));
    };
    terminal_in_user_namespace, How::RunOnTerminal, |b| {
        b.script("tty; ls -ln /dev/console /dev/pts | cut -c1-40; id").set("/process/terminal", json!(true)).user_namespace();
    };
    console_socket, How::ConsoleSocket, |b| {
        b.script("tty; stty size; test -t 0 && test -t 1 && test -t 2; echo $?").set("/process/terminal", json!(true));
    };
    state_of_a_running_one, How::Detached, |b| { b.set("/annotations", json!({"org.example": "yes"})); };
    state_of_a_created_one, How::Created, |_| {};
    other_user, How::Run, |b| {
        b.script(inside::SCRIPT).set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 3000]}));
    };
    user_umask, How::Run, |b| {
        b.script("umask; touch /tmp/x; ls -l /tmp | cut -c1-10").set("/process/user/umask", json!(0o077))
            .set("/root/readonly", json!(false));
    };
    no_capabilities, How::Run, |b| { b.script(inside::SCRIPT).capabilities(&[]); };
    more_capabilities, How::Run, |b| {
        b.script(inside::SCRIPT).capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_CHOWN", "CAP_SYS_PTRACE"]);
    };
    ambient_capabilities, How::Run, |b| {
        b.script("grep Cap /proc/self/status").set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .set("/process/capabilities/inheritable", json!(["CAP_KILL", "CAP_AUDIT_WRITE"]))
            .set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    };
    privileges_may_grow, How::Run, |b| {
        b.script("grep -E 'NoNewPrivs|Seccomp' /proc/self/status").set("/process/noNewPrivileges", json!(false));
    };
    working_directory, How::Run, |b| { b.script("pwd; env").set("/process/cwd", json!("/home/user")); };
    working_directory_is_made, How::Run, |b| {
        b.script("pwd; ls -ld . | cut -c1-10").set("/process/cwd", json!("/new/one")).set("/root/readonly", json!(false));
    };
    environment_only_as_given, How::Run, |b| {
        b.args(&["env"]).push("/process/env", json!("A=1")).push("/process/env", json!("A=2"))
            .push("/process/env", json!("EMPTY="));
    };
    path_lookup, How::Run, |b| { b.args(&["id", "-u"]).push("/process/env", json!("PATH=/nowhere:/bin")); };
    host_pid_namespace, How::Run, |b| { b.script("test $$ -gt 1; echo $?").without_namespace("pid"); };
    host_network, How::Run, |b| { b.script("ls /sys/class/net | grep -c lo").without_namespace("network"); };
    no_uts_namespace, How::Run, |b| { b.script("hostname").without_namespace("uts").remove("/hostname"); };
    domain_name, How::Run, |b| { b.script("cat /proc/sys/kernel/domainname; hostname"); };
    private_cgroup_namespace, How::Run, |b| {
        b.script("cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo | cut -d' ' -f4-6; ls /sys/fs/cgroup");
    };
    host_cgroup_namespace, How::Run, |b| {
        b.script("cat /proc/self/cgroup; ls /sys/fs/cgroup").without_namespace("cgroup");
    };
    joined_network, How::Run, |b| { b.script("ls /sys/class/net").join_namespace("network", "/proc/1/ns/net"); };
    joined_several, How::Run, |b| {
        b.script("hostname >/dev/null; echo joined; ls /proc/self/ns").remove("/hostname")
            .join_namespace("uts", "/proc/1/ns/uts").join_namespace("ipc", "/proc/1/ns/ipc");
    };
    bind_mounts, How::Run, |b| {
        let source = b.path.join("data");
        std::fs::create_dir(&source).expect("source");
        std::fs::write(source.join("file"), "content\n").expect("file");
        let source = source.to_string_lossy().into_owned();
        b.mount("/mnt", "bind", &source, &["rbind", "ro", "nosuid", "nodev"])
            .mount("/made/for/it", "bind", &source, &["bind", "rw", "noexec"])
            .mount("/etc/file", "bind", &format!("{source}/file"), &["bind", "rprivate"])
            .set("/root/readonly", json!(false))
            .script("cat /mnt/file /etc/file; touch /mnt/x; touch /made/for/it/y; ls /mnt; cut -d' ' -f5-6 /proc/self/mountinfo");
    };
    mount_options, How::Run, |b| {
        b.mount("/a", "tmpfs", "tmpfs", &["size=1m", "mode=700", "noatime", "nosuid", "uid=1000"])
            .mount("/b", "tmpfs", "tmpfs", &["ro", "nodiratime", "noexec", "nr_inodes=10"])
            .mount("/c", "tmpfs", "tmpfs", &["strictatime", "sync", "dirsync", "exec", "dev", "suid"])
            .set("/root/readonly", json!(false))
            .script("cut -d' ' -f5- /proc/self/mountinfo; ls -ldn /a /b /c | cut -c1-30");
    };
    root_propagation, How::Run, |b| {
        b.set("/linux/rootfsPropagation", json!("rslave")).script("cut -d' ' -f5- /proc/self/mountinfo | head -1 | sed 's/master:[0-9]*/master/'");
    };
    masked_and_read_only_paths, How::Run, |b| {
        b.set("/linux/maskedPaths", json!(["/proc/version", "/etc/passwd", "/home", "/not/there"]))
            .set("/linux/readonlyPaths", json!(["/tmp", "/proc/sys", "/nor/this"])).set("/root/readonly", json!(false))
            .script("cat /proc/version /etc/passwd; ls -a /home; touch /tmp/x; touch /ok && echo ok; cut -d' ' -f4-6 /proc/self/mountinfo");
    };
    extra_devices, How::Run, |b| {
        b.push("/linux/devices", json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 1000, "gid": 1000}))
            .push("/linux/devices", json!({"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600}))
            .script("ls -ln /dev /dev/sub | grep -E 'mine|pipe' | sed 's/ [A-Z][a-z][a-z] .*:.. / /'; head -c 2 /dev/mine | wc -c");
    };
    device_rules, How::Run, |b| {
        b.set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}]))
            .capabilities(&["CAP_MKNOD"]).set("/root/readonly", json!(false))
            .script("mknod /tmp/zero c 1 5; mknod /tmp/full c 1 7; mknod /tmp/kmsg c 1 11; for d in zero full kmsg; do head -c 1 /tmp/$d | wc -c; done; head -c1 /dev/null; echo $?");
    };
    sysctls, How::Run, |b| {
        b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456", "net.ipv4.ping_group_range": "0 7"}))
            .script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ping_group_range");
    };
    resource_limits, How::Run, |b| {
        b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NPROC", "soft": 50, "hard": 60}]))
            .script("cat /proc/self/limits");
    };
    oom_score, How::Run, |b| { b.set("/process/oomScoreAdj", json!(321)).script("cat /proc/self/oom_score_adj"); };
    limits_of_groups, How::Run, |b| {
        b.set("/linux/resources/memory", json!({"limit": 33_554_432, "reservation": 16_777_216}))
            .set("/linux/resources/cpu", json!({"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"}))
            .set("/linux/resources/pids", json!({"limit": 17}))
            .script("cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus pids/pids.max; grep Cpus_allowed_list /proc/self/status");
    };
    pids_limit_bites, How::Run, |b| {
        b.set("/linux/resources/pids", json!({"limit": 3}))
            .script("sleep 1 & sleep 1 & sleep 1 & echo not reached");
    };
    out_of_memory, How::Run, |b| {
        b.set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}))
            .script("sh -c 'x=a; i=0; while [ $i -lt 27 ]; do x=$x$x; i=$((i+1)); done' 2>/dev/null; echo $?");
    };
    seccomp_errno, How::Run, |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": ["uname"], "action": "SCMP_ACT_ERRNO"}]}))
            .set("/root/readonly", json!(false))
            .script("mkdir /x; echo $?; uname -r >/dev/null; echo $?; grep Seccomp /proc/self/status");
    };
    seccomp_arguments, How::Run, |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}))
            .script("kill -10 $$; echo $?; kill -0 $$; echo $?");
    };
    seccomp_allow_list, How::Run, |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ALLOWED_CALLS, "action": "SCMP_ACT_ALLOW"}]}))
            .script("echo works; mount -t tmpfs x /mnt; echo $?; unshare -U true; echo $?; grep Seccomp /proc/self/status");
    };
    seccomp_kill, How::Run, |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["umask"], "action": "SCMP_ACT_KILL_PROCESS"}]}))
            .script("sh -c umask; echo $?");
    };
    seccomp_with_privileges, How::Run, |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}))
            .set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .script("hostname x; echo $?; grep -E 'Seccomp|NoNew|Cap' /proc/self/status");
    };
    hooks, How::Run, |b| {
        let log = b.path.join("hooks.log").to_string_lossy().into_owned();
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            let script = format!("cat >/dev/null; echo {name} $FROM $1 >> {}", if name == "startContainer" { "/tmp/hooks.log" } else { &log });
            b.push(&format!("/hooks/{name}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script, "sh", "arg"], "env": ["FROM=env", "PATH=/bin:/usr/bin"]}));
        }
        let here = b.path.to_string_lossy().into_owned();
        b.set("/root/readonly", json!(false)).mount("/hooks", "bind", &here, &["rbind", "rw"])
            .script("sleep 0.3; cat /hooks/hooks.log /tmp/hooks.log");
    };
    hook_reads_the_state, How::Run, |b| {
        let file = b.path.join("state.txt").to_string_lossy().into_owned();
        let script = format!("tr ',' '\\n' | grep -E 'status|ociVersion|bundle' | sort > {file}");
        let here = b.path.to_string_lossy().into_owned();
        b.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", script]}))
            .mount("/hooks", "bind", &here, &["rbind", "ro"]).set("/root/readonly", json!(false))
            .script("tr -d '{} ' < /hooks/state.txt");
    };
    failing_hook, How::Refused(&["hook"]), |b| {
        b.push("/hooks/createRuntime", json!({"path": "/bin/false"})).script("echo must not run");
    };
    hook_that_never_ends, How::Refused(&["hook"]), |b| {
        b.push("/hooks/createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "300"], "timeout": 1}));
    };
    exec_plain, How::Exec(&[], &["/bin/sh", "-c", inside::SCRIPT]), |_| {};
    exec_in_user_namespace, How::Exec(&[], &["/bin/sh", "-c", inside::SCRIPT]), |b| { b.user_namespace(); };
    exec_as_user, How::Exec(&["--user", "1000:1000", "--additional-gids", "2000", "--cwd", "/home/user", "--env", "X=y"],
        &["/bin/sh", "-c", "id; pwd; env; grep -E 'Cap|NoNew' /proc/self/status"]), |_| {};
    exec_with_capability, How::Exec(&["--cap", "CAP_NET_RAW"], &["/bin/sh", "-c", "grep Cap /proc/self/status"]), |_| {};
    exec_exit_code, How::Exec(&[], &["/bin/sh", "-c", "exit 41"]), |_| {};
    exec_missing_program, How::Exec(&[], &["/no/such/program"]), |_| {};
    exec_not_executable, How::Exec(&[], &["/etc/passwd"]), |_| {};
    exec_on_terminal, How::ExecOnTerminal(&["/bin/sh", "-c", "tty; test -t 0; echo $?; ls -l /dev/console"]), |_| {};
    exec_under_seccomp, How::Exec(&[], &["/bin/sh", "-c", "mkdir /tmp/x; echo $?; grep Seccomp /proc/self/status"]), |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}));
    };
    refuses_a_missing_program, How::Refused(&["/no/such", "no such file"]), |b| { b.args(&["/no/such"]); };
    refuses_a_program_not_executable, How::Refused(&["permission denied"]), |b| { b.args(&["/etc/passwd"]); };
    refuses_no_arguments, How::Refused(&["args"]), |b| { b.args(&[]); };
    refuses_a_missing_root, How::Refused(&["rootfs", "no such file"]), |b| { b.set("/root/path", json!("nowhere")); };
    refuses_a_relative_cwd, How::Refused(&["cwd"]), |b| { b.set("/process/cwd", json!("relative")); };
    refuses_an_unknown_namespace, How::Refused(&["namespace"]), |b| {
        b.push("/linux/namespaces", json!({"type": "galaxy"}));
    };
    refuses_a_namespace_twice, How::Refused(&["pid"]), |b| { b.push("/linux/namespaces", json!({"type": "pid"})); };
    refuses_a_bad_namespace_path, How::Refused(&["/no/such/ns"]), |b| { b.join_namespace("network", "/no/such/ns"); };
    accepts_maps_without_namespace, How::Run, |b| {
        b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])).script("id");
    };
    refuses_a_missing_bind_source, How::Refused(&["/no/such/source"]), |b| {
        b.mount("/mnt", "bind", "/no/such/source", &["bind"]);
    };
    refuses_an_unknown_file_system, How::Refused(&["/mnt"]), |b| { b.mount("/mnt", "nosuchfs", "none", &[]); };
    refuses_a_sysctl_of_the_host, How::Refused(&["sysctl"]), |b| {
        b.set("/linux/sysctl", json!({"vm.overcommit_memory": "1"}));
    };
    refuses_an_unknown_limit, How::Refused(&["rlimit"]), |b| {
        b.set("/process/rlimits", json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]));
    };
    refuses_an_unknown_seccomp_action, How::Refused(&["seccomp"]), |b| {
        b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_MAYBE"}));
    };
    refuses_broken_json, How::Refused(&["json"]), |b| { b.config = json!("not an object"); };
    accepts_unknown_properties, How::Run, |b| {
        b.set("/future", json!({"x": 1})).set("/process/future", json!(true)).script("echo fine");
    };
    accepts_unknown_capabilities, How::Run, |b| {
        b.push("/process/capabilities/bounding", json!("CAP_FROM_THE_FUTURE")).script("grep Cap /proc/self/status");
    };
}

/// What busybox's shell and its applets need.
const ALLOWED_CALLS: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fchdir",
    "fcntl",
    "fork",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgrp",
    "getpid",
    "getppid",
    "getrandom",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sendfile",
    "sendmsg",
    "recvmsg",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "sigaltstack",
    "stat",
    "statx",
    "statfs",
    "umask",
    "uname",
    "vfork",
    "wait4",
    "write",
    "writev",
];

/// The rows of the table in docs/compatibility.md that repeats [`ACCEPTED`]: case and part of the line.
fn documented() -> BTreeSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let text = std::fs::read_to_string(path).expect("docs/compatibility.md");
    let (_, section) =
        text.split_once("## What the comparison of equal bundles lets pass\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let cell = |index: usize| Some(cells.get(index)?.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        Some((cell(1)?, cell(2)?))
    });
    rows.collect()
}

#[test]
fn every_accepted_difference_has_a_reason_and_is_documented() {
    for (case, part, reason) in ACCEPTED {
        assert!(!case.is_empty() && !part.is_empty() && reason.len() > 15, "{case}: {part}");
    }
    let accepted: BTreeSet<(String, String)> =
        ACCEPTED.iter().map(|(case, part, _)| ((*case).to_owned(), (*part).to_owned())).collect();
    assert_eq!(accepted, documented(), "ACCEPTED and docs/compatibility.md");
}
