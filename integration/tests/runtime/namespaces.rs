//! Every combination of new, joined and shared namespaces, through runc and through `coracle`: both refuse it, or the
//! container is in the same ones of the host's, the holder's (another container) and new ones.
//!
//! With a user namespace the order of joining decides who owns what, and whether the kernel allows it at all.

use std::collections::BTreeMap;

use coracle_integration::{Bundle, Container, Runtime, require_root};
use serde_json::{Value, json};

/// The specification's names and those in `/proc/<pid>/ns`.
const KINDS: [(&str, &str); 5] =
    [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    New,
    Joined,
    Shared,
}

const USES: [Use; 3] = [Use::New, Use::Joined, Use::Shared];

/// Combinations of the five, with a new mount namespace: a third of the 243, in which each use of one meets each use of
/// any three others. With `CORACLE_TEST_FULL` in the environment all of them.
fn combinations() -> Vec<[Use; 5]> {
    let full = std::env::var_os("CORACLE_TEST_FULL").is_some();
    let digit = |n: usize, at: usize| n / 3_usize.pow(at as u32) % 3;
    let chosen = (0..243).filter(|n| full || (0..5).map(|at| digit(*n, at)).sum::<usize>() % 3 == 0);
    chosen.map(|n| std::array::from_fn(|at| USES[digit(n, at)])).collect()
}

fn edit(bundle: &mut Bundle, holder: i32, user: Use, uses: [Use; 5]) {
    let names = "net ipc uts pid cgroup user mnt";
    bundle.script(&format!("for n in {names}; do echo $n $(readlink /proc/self/ns/$n); done"));
    // The name of the host or of another container is not ours to set, which both refuse.
    bundle.remove("/hostname");
    match user {
        Use::New => drop(bundle.user_namespace()),
        Use::Joined => {
            bundle.user_namespace().join_namespace("user", &format!("/proc/{holder}/ns/user"));
        }
        Use::Shared => {}
    }
    if user != Use::Shared {
        // Where the network is not the user namespace's, runc refuses sysfs and `coracle` binds the host's.
        bundle.set("/mounts", without_sysfs(&bundle.config["mounts"]));
        bundle.mount("/sys", "bind", "/sys", &["rbind", "ro", "nosuid", "noexec", "nodev"]);
    }
    for ((kind, file), how) in KINDS.into_iter().zip(uses) {
        bundle.without_namespace(kind);
        match how {
            Use::New => drop(bundle.push("/linux/namespaces", json!({"type": kind}))),
            Use::Joined => drop(bundle.join_namespace(kind, &format!("/proc/{holder}/ns/{file}"))),
            Use::Shared => {}
        }
    }
}

fn without_sysfs(mounts: &Value) -> Value {
    let list = mounts.as_array().expect("mounts").iter();
    list.filter(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/sys"))).cloned().collect()
}

/// Names the namespaces of a container by whose they are; a refusal has none.
fn observe(container: &Container, holder: i32) -> BTreeMap<String, &'static str> {
    let outcome = container.run();
    assert!(!outcome.timed_out, "{outcome:#?}");
    if !outcome.success() {
        println!("{} refuses: {}", container.runtime.name, outcome.stderr.trim());
        return BTreeMap::new();
    }
    let link = |pid: &str, file: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}"));
        link.map(|l| l.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let whose = |line: &str| {
        let (file, inside) = line.split_once(' ')?;
        let whose = match inside {
            "" => "unseen",
            inside if inside == link("self", file) => "host's",
            inside if inside == link(&holder.to_string(), file) => "holder's",
            _ => "new",
        };
        Some((file.to_owned(), whose))
    };
    outcome.stdout.lines().filter_map(whose).collect()
}

fn compare(user: Use, network: Use) {
    let oracle = Runtime::oracle();
    let subject = Runtime::subject();
    let holder = Container::sleeping(&subject, |bundle| {
        bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
        if user == Use::Joined {
            bundle.user_namespace();
        }
    });
    let pid = holder.init_pid();
    let mut accepted = 0;
    let mut differing = Vec::new();
    for uses in combinations().into_iter().filter(|uses| uses[0] == network) {
        let seen = [&oracle, &subject].map(|runtime| {
            let container = Container::edited(runtime, |bundle| edit(bundle, pid, user, uses));
            let seen = observe(&container, pid);
            container.finish();
            seen
        });
        accepted += usize::from(!seen[1].is_empty());
        if seen[0] != seen[1] {
            differing.push(format!("user {user:?}, {uses:?}: runc {:?}, coracle {:?}", seen[0], seen[1]));
        }
    }
    holder.finish();
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(accepted > 0, "not one combination runs: the test compares nothing");
}

/// One test a use of the user and the network namespace, with the combinations of the others.
macro_rules! cases {
    ($($name:ident: $user:ident, $network:ident;)*) => {$(
        #[test]
        fn $name() {
            require_root!();
            compare(Use::$user, Use::$network);
        }
    )*};
}

cases! {
    host_user_new_network: Shared, New;
    host_user_joined_network: Shared, Joined;
    host_user_shared_network: Shared, Shared;
    new_user_new_network: New, New;
    new_user_joined_network: New, Joined;
    new_user_shared_network: New, Shared;
    joined_user_new_network: Joined, New;
    joined_user_joined_network: Joined, Joined;
    joined_user_shared_network: Joined, Shared;
}
