//! The fall-backs: calls of newer kernels fail with ENOSYS (an old kernel) or EPERM (a container around us whose filter does
//! not know them), and what a container sees and how it lives stays the same.
//!
//! The other suites run so too: `CORACLE_TEST_DENY=ENOSYS:clone3,openat2 cargo xtask test integration/runtime`.

use coracle_integration::{Bundle, Container, Outcome, Runtime, inside, require_root};
use serde_json::json;

/// Each alone, then all that Linux 5.4 does not have, then the whole mount API with what stands in for it.
const DENIED: &[&str] = &[
    "clone3",
    "openat2",
    "fsopen",
    "fsconfig",
    "open_tree",
    "move_mount",
    "mount_setattr",
    "close_range",
    "faccessat2",
    "memfd_create",
    "openat2,close_range,mount_setattr,faccessat2,epoll_pwait2,process_madvise",
    "clone3,openat2,close_range,mount_setattr,faccessat2,fsopen,fsconfig,fsmount,fspick,open_tree,move_mount",
];

/// What is made of one bundle under a runtime, as text: the views from inside, and the life of a container.
fn observe(runtime: &Runtime, edit: fn(&mut Bundle)) -> String {
    let mut seen = String::new();
    let container = Container::edited(runtime, |bundle| {
        bundle.script(inside::SCRIPT);
        edit(bundle);
    });
    push(&mut seen, "run", &container, &container.run());
    container.finish();

    let container = Container::edited(runtime, |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
        edit(bundle);
    });
    container.create(&[]).expect_success();
    seen.push_str(&format!("created {}\n", container.status()));
    container.start().expect_success();
    seen.push_str(&format!("started {}\n", container.status()));
    push(&mut seen, "exec", &container, &container.exec(&[], &["/bin/sh", "-c", inside::SCRIPT]));
    container.kill("KILL").expect_success();
    container.await_status("stopped");
    push(&mut seen, "delete", &container, &container.delete());
    container.finish();
    seen
}

fn push(seen: &mut String, what: &str, container: &Container, outcome: &Outcome) {
    let text =
        format!("{}\n== exit code\n{:?}\n== errors\n{}\n", outcome.stdout, outcome.code, outcome.stderr);
    let view = inside::normalise(&text, &container.id, &container.directory().to_string_lossy());
    // The filter that denies the calls is one that a process sees on itself.
    let lines = view.lines().filter(|line| !line.starts_with("Seccomp"));
    lines.for_each(|line| seen.push_str(&format!("{what} {line}\n")));
}

fn same_when_denied(errno: &str, edit: fn(&mut Bundle)) {
    let runtime = Runtime::subject();
    if !runtime.is_coracle() {
        return;
    }
    let expected = observe(&Runtime { deny: None, ..runtime.clone() }, edit);
    let mut complaints = Vec::new();
    for names in DENIED {
        let found = observe(&Runtime { deny: Some(format!("{errno}:{names}")), ..runtime.clone() }, edit);
        let lines =
            |text: &str| -> std::collections::BTreeSet<String> { text.lines().map(str::to_owned).collect() };
        let (want, have) = (lines(&expected), lines(&found));
        complaints.extend(want.difference(&have).map(|line| format!("{errno}:{names}: gone: {line}")));
        complaints.extend(have.difference(&want).map(|line| format!("{errno}:{names}: new: {line}")));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn default_bundle(_: &mut Bundle) {}

fn user_namespace(bundle: &mut Bundle) {
    bundle.user_namespace();
}

/// Everything that a fall-back could lose: masks, read-only paths, binds with flags, nodes, tmpfs with a copy, limits.
fn with_everything(bundle: &mut Bundle) {
    let source = bundle.path.join("volume");
    std::fs::create_dir_all(&source).expect("volume");
    bundle
        .set("/root/readonly", json!(true))
        .mount("/mnt", "bind", &source.to_string_lossy(), &["rbind", "ro", "nosuid", "nodev", "noexec"])
        .mount("/run", "tmpfs", "tmpfs", &["tmpcopyup", "ro", "size=1m"])
        .push("/linux/maskedPaths", json!("/etc/passwd"))
        .push("/linux/readonlyPaths", json!("/home"))
        .push(
            "/linux/devices",
            json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5, "fileMode": 0o640}),
        )
        .set("/linux/resources/pids", json!({"limit": 100}));
}

#[test]
fn enosys_for_the_default_bundle() {
    require_root!();
    same_when_denied("ENOSYS", default_bundle);
}

#[test]
fn enosys_in_a_user_namespace() {
    require_root!();
    same_when_denied("ENOSYS", user_namespace);
}

#[test]
fn enosys_with_everything() {
    require_root!();
    same_when_denied("ENOSYS", with_everything);
}

#[test]
fn eperm_for_the_default_bundle() {
    require_root!();
    same_when_denied("EPERM", default_bundle);
}

#[test]
fn eperm_in_a_user_namespace() {
    require_root!();
    same_when_denied("EPERM", user_namespace);
}

#[test]
fn eperm_with_everything() {
    require_root!();
    same_when_denied("EPERM", with_everything);
}

/// Neither an overlay nor a memfd: then nothing runs unsealed, and the error says why.
#[test]
fn without_any_way_to_seal_nothing_starts() {
    require_root!();
    let runtime = Runtime::subject();
    if !runtime.is_coracle() {
        return;
    }
    let deny = Some("ENOSYS:fsopen,memfd_create".to_owned());
    let container = Container::edited(&Runtime { deny, ..runtime }, |bundle| {
        bundle.script("echo ran");
    });
    let outcome = container.run().expect_failure();
    assert!(
        !outcome.stdout.contains("ran") && outcome.stderr.contains("seal the runtime's binary"),
        "{outcome:#?}"
    );
    container.finish();
}
