//! `create`: plan, reserve the id, make what the container needs, clone its first process, answer it, record it.
//!
//! Every effect is on the record before the next one is made; a failure undoes them in reverse, and all that fails in
//! undoing is left for `delete --force`.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;

use oci_spec::runtime::{ContainerState, Hook, State};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::os::fd::AsFd;

use super::channel::{Channel, Message};
use super::deliver::{self, ListenerTarget};
use super::group::Group;
use super::handshake::{Handshake, Parent};
use super::{CreateRequest, Created, Error, Held, Stdio, handles, idmap, sources, spawn};
use crate::cgroup::Driver;
use crate::hooks::{self, Stage};
use crate::init::container::{self, Container};
use crate::init::net_devices::{self, NetDevice};
use crate::init::program::Program;
use crate::init::{StepError, enter};
use crate::plan::namespaces::{Kind, NamespacePlan, plan_namespaces};
use crate::plan::process::{ProcessPlan, plan_process};
use crate::plan::sysctls::plan_sysctls;
use crate::plan::{HostFacts, Problem, RootfsPlan, plan_rootfs};
use crate::proc_self::ProcSelf;
use crate::seccomp;
use crate::state::{ContainerDir, Identity, Record, Store};
use crate::sys::clone::Child;

/// What the configuration comes to on this host.
struct Plans {
    namespaces: NamespacePlan,
    process: ProcessPlan,
    rootfs: RootfsPlan,
    sysctls: Vec<(String, String)>,
}

/// See [`super::create`].
pub fn create(req: &CreateRequest) -> Result<(Created, Held), Error> {
    let own = ProcSelf::read();
    let facts = HostFacts::of(&own);
    let plans = plan(req, &facts)?;
    check_terminal(req, &plans.process)?;
    let store = Store::open(&req.root).map_err(record_error)?;
    let dir = store.create_dir(&req.id).map_err(record_error)?;
    if req.foreground {
        // What the container's processes leave behind is reaped by us.
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|e| StepError::os("become subreaper", "", e))?;
    }
    let mut undo = Undo::default();
    match make(req, plans, &own, &facts, &dir, &mut undo) {
        Ok((created, record)) => Ok((created, Held { dir, record })),
        Err(error) => {
            undo.run();
            let _ = dir.remove();
            Err(error)
        }
    }
}

fn plan(req: &CreateRequest, facts: &HostFacts) -> Result<Plans, Error> {
    let spec = &req.spec;
    let mut problems: Vec<Problem> = Vec::new();
    // systemd moves the child after the clone: a namespace made with it would be rooted at our own group, as on version 1.
    let born_in_group = facts.cgroup_unified && req.cgroup_driver != Driver::Systemd;
    let namespace_facts = HostFacts { cgroup_unified: born_in_group, ..facts.clone() };
    let namespaces = keep(plan_namespaces(spec, &namespace_facts), &mut problems);
    let rootfs = keep(plan_rootfs(spec, &req.bundle, facts), &mut problems);
    let process = match spec.process() {
        Some(process) => keep(plan_process(process, spec, facts), &mut problems),
        None => {
            problems.push(Problem::new("process", "process must be specified"));
            None
        }
    };
    if spec.linux().as_ref().is_some_and(|l| l.intel_rdt().is_some()) {
        problems.push(Problem::new("linux.intelRdt", "intelRdt is not supported"));
    }
    let sysctls = namespaces.as_ref().and_then(|n| keep(plan_sysctls(spec, n), &mut problems));
    match (namespaces, rootfs, process, sysctls) {
        (Some(namespaces), Some(mut rootfs), Some(mut process), Some(sysctls)) if problems.is_empty() => {
            rootfs.no_pivot = req.no_pivot;
            process.preserve_fds = req.preserve_fds + listen_fds();
            Ok(Plans { namespaces, process, rootfs, sysctls })
        }
        _ => Err(Error::Invalid(problems.iter().map(|p| p.message.clone()).collect())),
    }
}

fn keep<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|mut found| problems.append(&mut found)).ok()
}

/// Socket activation: the descriptors that the caller's supervisor passed to this process (sd_listen_fds(3)).
#[must_use]
pub fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == own => count,
        _ => 0,
    }
}

/// runc's rules and texts for who takes the terminal.
fn check_terminal(req: &CreateRequest, process: &ProcessPlan) -> Result<(), Error> {
    let detach = !req.foreground;
    match (detach, process.terminal, req.console_socket.is_some()) {
        (true, true, false) => Err(Error::State(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        )),
        (true, false, true) | (false, _, true) => {
            Err(Error::State("cannot use console socket if runc will not detach or allocate tty".to_owned()))
        }
        _ => Ok(()),
    }
}

fn make(
    req: &CreateRequest,
    mut plans: Plans,
    own: &ProcSelf,
    facts: &HostFacts,
    dir: &ContainerDir,
    undo: &mut Undo,
) -> Result<(Created, Record), Error> {
    let mut record = Record::new(&req.id, &req.bundle, &plans.rootfs.root, &req.spec);
    record.rootless = req.rootless;
    let group = Group::create(req, &mut record, dir, own)?;
    let group = undo.group.insert(group);
    plans.rootfs.cgroup2_path = record.cgroup_paths.get("").map(Into::into);
    crate::fault::point("create.group")?;
    let gate = handles::make_gate(&dir.exec_fifo(), plans.namespaces.host_root())?;
    let streams = streams(&req.stdio)?;
    record.external_descriptors = handles::external_descriptors(streams.as_ref());
    let seccomp = compile_seccomp(req)?;
    let listener = seccomp.as_ref().and_then(ListenerTarget::of);
    let rlimits = plans.process.rlimits.clone();
    let oom_score_adj = plans.process.oom_score_adj;
    let deny_groups = facts.euid != 0 && plans.process.groups.is_empty();
    let may_set_groups = !deny_groups && groups_allowed("self");
    let net_devices = net_devices::find(&req.spec)?;
    let sources = plans.rootfs.open_sources()?;
    let joined = handles::open_namespaces(&plans.namespaces.steps)?;
    let mut container = Container {
        handles: enter::Handles {
            namespaces: joined,
            tasks: group.join_files()?,
            unprivileged: facts.euid != 0,
            may_set_groups,
        },
        sources,
        hostname: req.spec.hostname().clone(),
        domainname: req.spec.domainname().clone(),
        sysctls: plans.sysctls,
        net_devices: net_devices.clone(),
        keyring: keyring_name(req),
        streams,
        create_container: hooks_of(req, Stage::CreateContainer),
        start_container: hooks_of(req, Stage::StartContainer),
        state: record.oci_state(ContainerState::Creating),
        gate,
        program: Program::new(plans.process, seccomp, may_set_groups, listen_fds()),
        namespaces: plans.namespaces,
        rootfs: plans.rootfs,
    };
    let (ours, theirs) = Channel::pair()?;
    crate::fault::point("create.clone")?;
    let steps = container.namespaces.steps.clone();
    let joined = super::exec::duplicate(&container.handles.namespaces)?;
    let child = spawn::spawn(&steps, &joined, group.clone_into(), || container::run(&mut container, theirs))?;
    undo.child =
        Some(rustix::io::fcntl_dupfd_cloexec(&child.pidfd, 3).map_err(|e| StepError::os("dup", "pidfd", e))?);
    prepare_child(&container, &child, group, oom_score_adj, deny_groups)?;
    crate::fault::point("create.cloned")?;
    ours.send(&Message::Go, None)?;

    let console_socket = req.console_socket.as_deref();
    let mut handshake =
        Handshake { channel: ours, child, console_socket, listener, rlimits: &rlimits, console: None };
    let mut creating = Creating {
        req,
        record,
        dir,
        group,
        net_devices: &net_devices,
        child: &mut undo.child,
        rootfs: &container.rootfs,
    };
    handshake.run(&mut creating).map_err(|error| match error {
        Error::Step(step) => Error::Step(step.inside("error during container init")),
        other => other,
    })?;
    crate::fault::point("create.done")?;
    publish(req, handshake.child.pid, &handshake.child.pidfd)?;
    let Child { pid, pidfd, .. } = handshake.child;
    Ok((Created { pid, pidfd, console: handshake.console }, creating.record))
}

/// What the child needs of us before it may go on: its group after a fallback, OOM score, id maps.
fn prepare_child(
    container: &Container,
    child: &Child,
    group: &mut Group,
    oom_score_adj: Option<i32>,
    deny_groups: bool,
) -> Result<(), Error> {
    if group.needs_add() {
        group.adopt(child.pid)?;
    } else if !child.in_cgroup {
        group.add_process(child.pid)?;
    }
    set_oom_score(child.pid, oom_score_adj, container.handles.unprivileged)?;
    if container.namespaces.is_new(Kind::User) {
        let plan = &container.namespaces;
        idmap::write(child.pid, &plan.uid_map, &plan.gid_map, deny_groups)?;
    }
    Ok(())
}

pub(super) fn set_oom_score(pid: i32, score: Option<i32>, unprivileged: bool) -> Result<(), StepError> {
    let Some(score) = score else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Rootless callers pass the score of their own template; the kernel lets nobody lower it.
        Err(e) if unprivileged && matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other.map_err(|e| StepError::io("write", &path, &e)),
    }
}

pub(super) fn groups_allowed(pid: &str) -> bool {
    crate::small_file::read_text(format!("/proc/{pid}/setgroups")).map_or(true, |text| text.trim() != "deny")
}

pub(super) fn streams(stdio: &Stdio) -> Result<Option<[OwnedFd; 3]>, StepError> {
    let Stdio::Fds(fds) = stdio else { return Ok(None) };
    let dup = |fd: &OwnedFd| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| StepError::os("duplicate", "standard stream", e))
    };
    Ok(Some([dup(&fds[0])?, dup(&fds[1])?, dup(&fds[2])?]))
}

fn compile_seccomp(req: &CreateRequest) -> Result<Option<seccomp::Filter>, Error> {
    let Some(profile) = req.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) else { return Ok(None) };
    super::compile_seccomp(profile, &req.root).map(Some)
}

fn keyring_name(req: &CreateRequest) -> Option<CString> {
    (!req.no_new_keyring).then(|| CString::new(format!("_ses.{}", req.id)).ok()).flatten()
}

fn hooks_of(req: &CreateRequest, stage: Stage) -> Vec<Hook> {
    super::hooks_of(&req.spec, stage)
}

fn publish(req: &CreateRequest, pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
    if let Some(path) = &req.pidfd_socket {
        let socket = deliver::open_socket(path)?;
        deliver::send_fd(&socket, b"pidfd", pidfd.as_fd())?;
    }
    if let Some(path) = &req.pid_file {
        deliver::write_pid_file(path, pid)?;
    }
    Ok(())
}

/// The parent's deeds while a container is made.
struct Creating<'a> {
    req: &'a CreateRequest,
    record: Record,
    dir: &'a ContainerDir,
    group: &'a Group,
    net_devices: &'a [NetDevice],
    child: &'a mut Option<OwnedFd>,
    rootfs: &'a RootfsPlan,
}

impl Creating<'_> {
    fn save(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        let identity = Identity::of(pid, pidfd).map_err(record_error)?;
        self.record.set_identity(identity);
        self.dir.save(&self.record).map_err(record_error)
    }

    fn run_hooks(&self, stage: Stage) -> Result<(), Error> {
        let list = hooks_of(self.req, stage);
        if list.is_empty() {
            return Ok(());
        }
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        hooks::run(stage, &list, &self.state(), &environment).map_err(|e| Error::Hook(Box::new(e)))
    }
}

impl Parent for Creating<'_> {
    fn moved(&mut self, _pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        let copy = rustix::io::fcntl_dupfd_cloexec(pidfd, 3).map_err(|e| StepError::os("dup", "pidfd", e))?;
        *self.child = Some(copy);
        Ok(())
    }

    fn mounted(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        crate::fault::point("create.mounted")?;
        self.group.attach_devices()?;
        net_devices::move_to(pid, self.net_devices)?;
        let hooked = self.req.spec.hooks().is_some();
        if hooked {
            // A hook may ask for the state.
            self.save(pid, pidfd)?;
            self.run_hooks(Stage::Prestart)?;
            self.run_hooks(Stage::CreateRuntime)?;
        }
        Ok(())
    }

    fn source(&mut self, index: usize, child: &Child) -> Result<Option<OwnedFd>, Error> {
        Ok(sources::open(self.rootfs, index, child)?)
    }

    fn ready(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        crate::fault::point("create.record")?;
        self.save(pid, pidfd)
    }

    fn state(&self) -> State {
        self.record.oci_state(ContainerState::Creating)
    }

    fn executes(&self) -> bool {
        false
    }
}

/// What a failed create takes back: the child first, so that its group can go.
#[derive(Default)]
struct Undo {
    child: Option<OwnedFd>,
    group: Option<Group>,
}

impl Undo {
    fn run(&mut self) {
        if let Some(pidfd) = &self.child {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        if let Some(group) = &self.group {
            let _ = group.remove();
        }
    }
}

pub(super) fn record_error(error: crate::state::Error) -> Error {
    use crate::state::Error as State;
    match error {
        State::Exists => Error::Exists,
        State::NotFound => Error::NoContainer,
        other => Error::Record(Box::new(other)),
    }
}
