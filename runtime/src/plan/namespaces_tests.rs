//! Golden plans: new, join and none of each kind, on cgroup v1 and v2, as root and without privilege.

use std::collections::BTreeSet;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;

fn spec(namespaces: &[(&str, &str)], extra: Value) -> Spec {
    let list: Vec<Value> = namespaces
        .iter()
        .map(
            |(kind, path)| {
                if path.is_empty() { json!({"type": kind}) } else { json!({"type": kind, "path": path}) }
            },
        )
        .collect();
    let mut linux = json!({ "namespaces": list });
    if let (Some(linux), Some(extra)) = (linux.as_object_mut(), extra.as_object()) {
        linux.extend(extra.clone());
    }
    serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": linux})).unwrap()
}

fn maps() -> Value {
    json!({
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    })
}

fn facts(unified: bool, euid: u32) -> HostFacts {
    HostFacts { cgroup_unified: unified, euid, ..HostFacts::example() }
}

/// One word a step, so that a whole plan is one line.
fn line(plan: &NamespacePlan) -> String {
    let names = |flags: u64| {
        let set: BTreeSet<&str> =
            Kind::ALL.iter().filter(|k| flags & k.flag() != 0).map(|k| k.proc_name()).collect();
        set.into_iter().collect::<Vec<_>>().join("+")
    };
    let words: Vec<String> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Enter(kind, _) => format!("enter:{}", kind.proc_name()),
            Step::EnterNewTime(_) => "enter-new-time".into(),
            Step::Clone(flags) => format!("clone({})", names(*flags)),
            Step::Restore(kind) => format!("restore:{}", kind.proc_name()),
            Step::MapIds => "map".into(),
            Step::BecomeRoot => "root".into(),
            Step::Join(kind, _) => format!("join:{}", kind.proc_name()),
            Step::JoinCgroups => "cgroups".into(),
            Step::Unshare(flags) => format!("unshare({})", names(*flags)),
            Step::UnshareTime(_) => "unshare-time".into(),
            Step::CloneAgain(flags) => format!("again({})", names(*flags)),
        })
        .collect();
    words.join(" ")
}

const DEFAULT: &[(&str, &str)] =
    &[("pid", ""), ("network", ""), ("ipc", ""), ("uts", ""), ("mount", ""), ("cgroup", "")];

#[test]
fn golden_plans() {
    let with_user: Vec<(&str, &str)> = DEFAULT.iter().copied().chain([("user", "")]).collect();
    let pod = [("pid", ""), ("mount", ""), ("network", "/n"), ("ipc", "/i"), ("uts", "/u"), ("cgroup", "")];
    let shared_pid = [("pid", "/p"), ("mount", ""), ("network", "/n")];
    let pod_user: Vec<(&str, &str)> = pod.iter().copied().chain([("user", "/user")]).collect();
    let new_user_joins = [("user", ""), ("mount", ""), ("network", "/n"), ("pid", "/p")];
    let rootless_pid = [("user", "/user"), ("pid", "/p"), ("mount", "")];
    let time = [("time", ""), ("mount", "")];
    let time_pid_user = [("user", ""), ("time", ""), ("pid", ""), ("mount", "")];
    let offsets = json!({"timeOffsets": {"monotonic": {"secs": 5}}});
    let mut offsets_and_maps = maps();
    offsets_and_maps["timeOffsets"] = offsets["timeOffsets"].clone();

    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Value, bool, u32, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("none", &[], json!({}), true, 0, "clone() cgroups"),
        ("default v2", DEFAULT, json!({}), true, 0, "clone(cgroup+ipc+mnt+net+pid+uts) cgroups"),
        ("default v1", DEFAULT, json!({}), false, 0, "clone(ipc+mnt+net+pid+uts) cgroups unshare(cgroup)"),
        (
            "user v2",
            &with_user,
            maps(),
            true,
            0,
            "clone(cgroup+mnt+net+pid+user+uts) map root cgroups unshare(ipc)",
        ),
        (
            "user v1",
            &with_user,
            maps(),
            false,
            0,
            "clone(mnt+net+pid+user+uts) map root cgroups unshare(cgroup+ipc)",
        ),
        (
            "rootless v2",
            &with_user,
            maps(),
            true,
            1000,
            "clone(cgroup+mnt+net+pid+user+uts) map root cgroups unshare(ipc)",
        ),
        ("pod v2", &pod, json!({}), true, 0, "clone(cgroup+mnt+pid) cgroups join:ipc join:uts join:net"),
        (
            "pod v1",
            &pod,
            json!({}),
            false,
            0,
            "clone(mnt+pid) cgroups join:ipc join:uts join:net unshare(cgroup)",
        ),
        ("pid joined", &shared_pid, json!({}), true, 0, "clone(mnt) cgroups join:net join:pid again()"),
        (
            "pod with user joined",
            &pod_user,
            json!({}),
            true,
            0,
            "clone() cgroups join:ipc join:uts join:net join:user root unshare(cgroup+mnt) again(pid)",
        ),
        (
            "new user, host's net and pid",
            &new_user_joins,
            maps(),
            true,
            0,
            "enter:net enter:pid clone(mnt+user) restore:net restore:pid map root cgroups",
        ),
        (
            "rootless pid joined",
            &rootless_pid,
            json!({}),
            true,
            1000,
            "clone() cgroups join:user root join:pid unshare(mnt) again()",
        ),
        ("time plain", &time, json!({}), true, 0, "clone(mnt+time) cgroups"),
        ("time offsets", &time, offsets, true, 0, "enter-new-time clone(mnt) restore:time cgroups"),
        (
            "time offsets rootless",
            &time_pid_user,
            offsets_and_maps,
            true,
            1000,
            "clone(mnt+user) map root cgroups unshare-time again(pid)",
        ),
    ];
    for (name, namespaces, extra, unified, euid, want) in cases {
        let plan = plan_namespaces(&spec(namespaces, extra), &facts(unified, euid)).unwrap();
        assert_eq!(line(&plan), want, "{name}");
    }
}

#[test]
fn problems_come_all_at_once() {
    let mut bad =
        spec(&[("user", ""), ("pid", ""), ("pid", "")], json!({"timeOffsets": {"boottime": {"secs": 1}}}));
    bad.set_hostname(Some("web".into()));
    let problems = plan_namespaces(&bad, &facts(true, 0)).unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["linux.namespaces", "linux.uidMappings", "linux.timeOffsets", "hostname"]);
}

#[test]
fn offsets_are_lines_of_the_kernels_file() {
    let extra = json!({"timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 9}}});
    assert_eq!(time_offsets(&spec(&[("time", "")], extra)), "boottime 9 0\nmonotonic -5 7\n");
}
