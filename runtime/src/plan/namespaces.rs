//! In which order a container's namespaces are made and entered.
//!
//! ```text
//! parent: Enter… → clone3(flags) → Restore → id maps          child: BecomeRoot → Join… → JoinCgroups → Unshare
//! ```
//! Why the order is this one:
//! - `setns` to a pid namespace only concerns children: the child does it last and clones once more, so that what its
//!   processes can see (with CAP_SYS_PTRACE also through `/proc/<pid>/fd`) has no descriptor of the host any more.
//! - A time namespace with offsets only concerns children too: the parent makes it and goes back, or, without privilege,
//!   the child makes it and clones once more.
//! - Namespaces of the host that a new user namespace does not own can't be joined from inside it: the parent enters
//!   them before the clone.
//! - On cgroup v1, and before a later join of another group, `CLONE_NEWCGROUP` would root the namespace at the parent's
//!   group: it is unshared after the child is in its groups.
//! - `clone3(CLONE_NEWTIME)` freezes the offsets, so it is never used with offsets.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::{HostFacts, Problem};

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    User,
    Ipc,
    Uts,
    Net,
    Pid,
    Mount,
    Cgroup,
    Time,
}

impl Kind {
    /// In the order in which they are joined.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Ipc, Self::Uts, Self::Net, Self::Pid, Self::Mount, Self::Cgroup, Self::Time];

    /// Its `CLONE_NEW*` flag.
    #[must_use]
    pub const fn flag(self) -> u64 {
        match self {
            Self::User => 0x1000_0000,
            Self::Ipc => 0x0800_0000,
            Self::Uts => 0x0400_0000,
            Self::Net => 0x4000_0000,
            Self::Pid => 0x2000_0000,
            Self::Mount => 0x0002_0000,
            Self::Cgroup => 0x0200_0000,
            Self::Time => 0x0000_0080,
        }
    }

    /// Its name below `/proc/<pid>/ns`.
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    fn of(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Network => Self::Net,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Time => Self::Time,
        }
    }
}

/// What is asked for one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The caller's own.
    Keep,
    /// A new one.
    New,
    /// The one at this path.
    Join(PathBuf),
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Parent: `setns` for the time of the clone.
    Enter(Kind, PathBuf),
    /// Parent: a new time namespace for children, with these lines of `timens_offsets`.
    EnterNewTime(String),
    /// Parent: clone the child with these flags.
    Clone(u64),
    /// Parent: back to the own namespace.
    Restore(Kind),
    /// Parent: write the id maps, then let the child go on.
    MapIds,
    /// Child: become id 0 of the user namespace.
    BecomeRoot,
    /// Child: `setns`.
    Join(Kind, PathBuf),
    /// Child: write itself into its cgroup v1 `tasks` files (nothing on v2).
    JoinCgroups,
    /// Child: `unshare` these flags.
    Unshare(u64),
    /// Child: unshare time, write offsets.
    UnshareTime(String),
    /// Child: clone once more as the parent's child, with these flags; the first child ends.
    CloneAgain(u64),
}

/// Namespaces as wished, and the id maps of a new user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePlan {
    /// The steps in order; those of the child follow all of the parent's.
    pub steps: Vec<Step>,
    /// What was wished, in the order of [`Kind::ALL`].
    pub wishes: Vec<(Kind, Wish)>,
    /// Maps of a new user namespace.
    pub uid_map: Vec<LinuxIdMapping>,
    /// Maps of a new user namespace.
    pub gid_map: Vec<LinuxIdMapping>,
}

impl NamespacePlan {
    /// What was wished for `kind`.
    #[must_use]
    pub fn wish(&self, kind: Kind) -> &Wish {
        self.wishes.iter().find(|(k, _)| *k == kind).map_or(&Wish::Keep, |(_, wish)| wish)
    }

    /// A new namespace of `kind` is made.
    #[must_use]
    pub fn is_new(&self, kind: Kind) -> bool {
        *self.wish(kind) == Wish::New
    }

    /// The container is not in the caller's namespace of `kind`.
    #[must_use]
    pub fn is_private(&self, kind: Kind) -> bool {
        *self.wish(kind) != Wish::Keep
    }

    /// The uid and gid on the host of the container's root.
    #[must_use]
    pub fn host_root(&self) -> (u32, u32) {
        let root =
            |map: &[LinuxIdMapping]| map.iter().find(|m| m.container_id() == 0).map_or(0, |m| m.host_id());
        (root(&self.uid_map), root(&self.gid_map))
    }
}

/// Plans the namespaces of `spec`.
///
/// # Errors
/// Duplicates, a new user namespace without mappings, mappings without one, offsets without a new time namespace.
pub fn plan_namespaces(spec: &Spec, facts: &HostFacts) -> Result<NamespacePlan, Vec<Problem>> {
    let mut problems = Vec::new();
    let wishes = wishes(spec, &mut problems);
    let linux = spec.linux().as_ref();
    let map = |m: Option<&Option<Vec<LinuxIdMapping>>>| m.and_then(Clone::clone).unwrap_or_default();
    let mut plan = NamespacePlan {
        steps: Vec::new(),
        wishes,
        uid_map: map(linux.map(|l| l.uid_mappings())),
        gid_map: map(linux.map(|l| l.gid_mappings())),
    };
    check(&plan, spec, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    if !plan.is_new(Kind::User) {
        plan.uid_map.clear();
        plan.gid_map.clear();
    }
    plan.steps = order(&plan, time_offsets(spec), facts);
    Ok(plan)
}

fn wishes(spec: &Spec, problems: &mut Vec<Problem>) -> Vec<(Kind, Wish)> {
    let mut wishes: Vec<(Kind, Wish)> = Kind::ALL.iter().map(|kind| (*kind, Wish::Keep)).collect();
    let list = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or(&[]);
    for namespace in list {
        let kind = Kind::of(namespace.typ());
        let path = namespace.path().clone().filter(|p| !p.as_os_str().is_empty());
        let Some(slot) = wishes.iter_mut().find(|(k, _)| *k == kind) else { continue };
        if slot.1 != Wish::Keep {
            problems.push(Problem::new(
                "linux.namespaces",
                format!("malformed spec file: duplicated ns {namespace:?}"),
            ));
        }
        slot.1 = path.map_or(Wish::New, Wish::Join);
    }
    wishes
}

fn check(plan: &NamespacePlan, spec: &Spec, problems: &mut Vec<Problem>) {
    let mapped = !plan.uid_map.is_empty() && !plan.gid_map.is_empty();
    let mut refuse = |field: &str, text: &str| problems.push(Problem::new(field, text));
    // Mappings without a new user namespace have no effect, as with runc.
    if plan.is_new(Kind::User) && !mapped {
        refuse("linux.uidMappings", "user namespaces enabled, but no uid or gid mappings found");
    }
    if !time_offsets(spec).is_empty() && !plan.is_new(Kind::Time) {
        refuse(
            "linux.timeOffsets",
            "time namespace offsets specified, but no new time namespace is configured",
        );
    }
    let host_uts = !plan.is_private(Kind::Uts);
    if host_uts && spec.hostname().as_ref().is_some_and(|h| !h.is_empty()) {
        refuse("hostname", "unable to set hostname without a private UTS namespace");
    }
    if host_uts && spec.domainname().as_ref().is_some_and(|d| !d.is_empty()) {
        refuse("domainname", "unable to set domainname without a private UTS namespace");
    }
}

fn time_offsets(spec: &Spec) -> String {
    let Some(offsets) = spec.linux().as_ref().and_then(|l| l.time_offsets().as_ref()) else {
        return String::new();
    };
    let mut lines: Vec<String> = offsets
        .iter()
        .map(|(clock, o)| format!("{clock} {} {}\n", o.secs().unwrap_or(0), o.nanosecs().unwrap_or(0)))
        .collect();
    lines.sort();
    lines.concat()
}

fn order(plan: &NamespacePlan, offsets: String, facts: &HostFacts) -> Vec<Step> {
    let privileged = facts.euid == 0;
    let new_user = plan.is_new(Kind::User);
    // The parent may enter what it owns; without privilege only the child, inside the joined user namespace, may.
    let parent_enters = |kind: Kind| match kind {
        Kind::Pid | Kind::Ipc | Kind::Uts | Kind::Net | Kind::Time | Kind::Cgroup => privileged && new_user,
        Kind::User | Kind::Mount => false,
    };
    let own_time = plan.is_new(Kind::Time) && !offsets.is_empty();
    let time_by_parent = own_time && privileged;
    // A new pid namespace belongs to the user namespace that is current at its making, and only its owner mounts proc.
    let joined_user_owns_pid = matches!(plan.wish(Kind::User), Wish::Join(_)) && plan.is_new(Kind::Pid);
    let again = joined_user_owns_pid
        || (!privileged && own_time)
        || (matches!(plan.wish(Kind::Pid), Wish::Join(_)) && !parent_enters(Kind::Pid));

    let mut steps = Vec::new();
    let mut restores = Vec::new();
    for (kind, wish) in &plan.wishes {
        if let Wish::Join(path) = wish
            && parent_enters(*kind)
        {
            steps.push(Step::Enter(*kind, path.clone()));
            restores.push(Step::Restore(*kind));
        }
    }
    if time_by_parent {
        steps.push(Step::EnterNewTime(offsets.clone()));
        restores.push(Step::Restore(Kind::Time));
    }
    steps.push(Step::Clone(clone_flags(plan, own_time, again, facts)));
    steps.append(&mut restores);
    if new_user {
        steps.push(Step::MapIds);
    }
    child_steps(plan, facts, &parent_enters, &mut steps);
    if own_time && !time_by_parent {
        steps.push(Step::UnshareTime(offsets));
    }
    if again {
        steps.push(Step::CloneAgain(if plan.is_new(Kind::Pid) { Kind::Pid.flag() } else { 0 }));
    }
    steps
}

/// New namespaces are made by the first clone, except where a user namespace joined by the child must own them.
fn clone_flags(plan: &NamespacePlan, own_time: bool, again: bool, facts: &HostFacts) -> u64 {
    let joins_user = matches!(plan.wish(Kind::User), Wish::Join(_));
    plan.wishes
        .iter()
        .filter(|(_, wish)| *wish == Wish::New)
        .filter(|(kind, _)| match kind {
            Kind::User => true,
            Kind::Cgroup => !joins_user && facts.cgroup_unified,
            Kind::Time => !joins_user && !own_time,
            // Pid is not made by unshare: it is for the child itself. Only a second clone makes it later.
            Kind::Pid => !again,
            // Made by the container's root, which then owns /dev/mqueue.
            Kind::Ipc => !joins_user && !plan.is_new(Kind::User),
            Kind::Uts | Kind::Net | Kind::Mount => !joins_user,
        })
        .fold(0, |flags, (kind, _)| flags | kind.flag())
}

fn child_steps(
    plan: &NamespacePlan,
    facts: &HostFacts,
    parent_enters: &dyn Fn(Kind) -> bool,
    steps: &mut Vec<Step>,
) {
    let joins_user = matches!(plan.wish(Kind::User), Wish::Join(_));
    if plan.is_new(Kind::User) {
        steps.push(Step::BecomeRoot);
    }
    // The cgroups' files are opened by the parent, so that they can be written from any namespace.
    steps.push(Step::JoinCgroups);
    let mut joins: Vec<(Kind, PathBuf)> = plan
        .wishes
        .iter()
        .filter(|(kind, _)| !parent_enters(*kind))
        .filter_map(|(kind, wish)| match wish {
            Wish::Join(path) => Some((*kind, path.clone())),
            Wish::Keep | Wish::New => None,
        })
        .collect();
    if facts.euid == 0 {
        // Root may enter everything, whoever owns it, until it gives up its own user namespace.
        joins.sort_by_key(|(kind, _)| *kind == Kind::User);
    }
    for (kind, path) in joins {
        steps.push(Step::Join(kind, path));
        if kind == Kind::User {
            steps.push(Step::BecomeRoot);
        }
    }
    let late = plan
        .wishes
        .iter()
        .filter(|(_, wish)| *wish == Wish::New)
        .filter(|(kind, _)| match kind {
            Kind::Cgroup => joins_user || !facts.cgroup_unified,
            Kind::Ipc => joins_user || plan.is_new(Kind::User),
            Kind::Uts | Kind::Net | Kind::Mount => joins_user,
            Kind::User | Kind::Pid | Kind::Time => false,
        })
        .fold(0, |flags, (kind, _)| flags | kind.flag());
    if late != 0 {
        steps.push(Step::Unshare(late));
    }
}

#[cfg(test)]
#[path = "namespaces_tests.rs"]
mod tests;
