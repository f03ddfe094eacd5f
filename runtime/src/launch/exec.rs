//! `exec`: another process in a running container, in all of its namespaces and in its cgroup.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use oci_spec::runtime::{ContainerState, State};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::channel::{Channel, Message};
use super::create::{groups_allowed, listen_fds, record_error, set_oom_score, streams};
use super::deliver::{self, ListenerTarget};
use super::group::Group;
use super::handshake::{Handshake, Parent};
use super::{Error, ExecRequest, Execed, handles, spawn};
use crate::init::joined::{self, Joined};
use crate::init::program::Program;
use crate::init::{StepError, enter};
use crate::plan::HostFacts;
use crate::plan::namespaces::{Kind, Step};
use crate::plan::process::{ProcessPlan, plan_process};
use crate::state::{Record, Store};
use crate::sys::clone::Child;

/// See [`super::exec`].
pub fn exec(req: &ExecRequest) -> Result<Execed, Error> {
    let record = Store::at(&req.root).load(&req.id).map_err(record_error)?;
    let identity = record.identity.as_ref();
    let init = identity.map(|i| i.open().map_err(record_error)).transpose()?.flatten();
    let init = init.ok_or_else(|| Error::State("cannot exec in a stopped container".to_owned()))?;
    let facts = HostFacts::gather();
    let process = plan(req, &record, &facts)?;
    let group = Group::of_container(&record, req)?;
    if !req.ignore_paused && group.is_frozen()? {
        let text = "cannot exec in a paused container (use --ignore-paused to override)";
        return Err(Error::State(text.to_owned()));
    }
    if !req.detach {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|e| StepError::os("become subreaper", "", e))?;
    }
    let steps = steps(record.init_process_pid, facts.euid == 0)?;
    let namespaces = handles::open_namespaces(&steps)?;
    still_alive(&init)?;
    launch(req, &record, &facts, process, &group, steps, namespaces)
}

fn plan(req: &ExecRequest, record: &Record, facts: &HostFacts) -> Result<ProcessPlan, Error> {
    let planned = plan_process(&req.process, &record.spec, facts);
    let mut process = planned.map_err(|all| Error::Invalid(all.into_iter().map(|p| p.message).collect()))?;
    match (req.detach, process.terminal, req.console_socket.is_some()) {
        (true, true, false) => {
            let text = "cannot allocate tty if runc will detach without setting console socket";
            return Err(Error::State(text.to_owned()));
        }
        (true, false, true) | (false, _, true) => {
            let text = "cannot use console socket if runc will not detach or allocate tty";
            return Err(Error::State(text.to_owned()));
        }
        _ => {}
    }
    process.preserve_fds = req.preserve_fds + listen_fds();
    Ok(process)
}

/// Joins what differs from ours, by init's namespaces.
fn steps(init: i32, privileged: bool) -> Result<Vec<Step>, StepError> {
    let mut differing = Vec::new();
    for kind in Kind::ALL {
        let path = PathBuf::from(format!("/proc/{init}/ns/{}", kind.proc_name()));
        let own = format!("/proc/self/ns/{}", kind.proc_name());
        let inode = |path: &std::path::Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
        match (inode(&path), inode(own.as_ref())) {
            (Ok(theirs), Ok(ours)) if theirs != ours => differing.push((kind, path)),
            (Ok(_), Ok(_)) => {}
            (Err(e), Ok(_)) => return Err(StepError::io("open", path.display(), &e)),
            // This kernel has no such namespaces.
            (_, Err(_)) => {}
        }
    }
    // The first child stays outside the pid namespace: the container would see its descriptors.
    let again = differing.iter().any(|(kind, _)| *kind == Kind::Pid);
    let mut steps = vec![Step::Clone(0), Step::JoinCgroups];
    if privileged {
        differing.sort_by_key(|(kind, _)| *kind == Kind::User);
    }
    for (kind, path) in differing {
        steps.push(Step::Join(kind, path));
        if kind == Kind::User {
            steps.push(Step::BecomeRoot);
        }
    }
    if again {
        steps.push(Step::CloneAgain(0));
    }
    Ok(steps)
}

/// The namespaces were opened by number: they are the container's only if its init still lives after that.
fn still_alive(init: &OwnedFd) -> Result<(), Error> {
    match pidfd_send_signal_zero(init) {
        true => Ok(()),
        false => Err(Error::State("cannot exec in a stopped container".to_owned())),
    }
}

fn pidfd_send_signal_zero(init: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(init, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn launch(
    req: &ExecRequest,
    record: &Record,
    facts: &HostFacts,
    process: ProcessPlan,
    group: &Group,
    steps: Vec<Step>,
    namespaces: Vec<(Kind, OwnedFd)>,
) -> Result<Execed, Error> {
    let profile = record.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let seccomp = profile.map(|p| super::compile_seccomp(p, &req.root)).transpose()?;
    let listener = seccomp.as_ref().and_then(ListenerTarget::of);
    let may_set_groups = groups_allowed(&record.init_process_pid.to_string());
    let rlimits = process.rlimits.clone();
    let oom_score_adj = process.oom_score_adj;
    let mut child_plan = Joined {
        handles: enter::Handles {
            namespaces: duplicate(&namespaces)?,
            tasks: group.join_files()?,
            unprivileged: facts.euid != 0,
            may_set_groups,
        },
        steps: steps.clone(),
        streams: streams(&req.stdio)?,
        program: Program::new(process, seccomp, may_set_groups, listen_fds()),
    };
    let (ours, theirs) = Channel::pair()?;
    crate::fault::point("exec.clone")?;
    let child = spawn_in(group, &steps, &namespaces, || joined::run(&mut child_plan, theirs))?;
    let mut guard = KillGuard(Some(dup(&child.pidfd)?));
    if !child.in_cgroup {
        group.add_process(child.pid)?;
    }
    set_oom_score(child.pid, oom_score_adj, facts.euid != 0)?;
    crate::fault::point("exec.cloned")?;
    ours.send(&Message::Go, None)?;
    let console_socket = req.console_socket.as_deref();
    let mut handshake =
        Handshake { channel: ours, child, console_socket, listener, rlimits: &rlimits, console: None };
    handshake.run(&mut Execing { record, child: &mut guard.0 })?;
    publish(req, &handshake)?;
    guard.0 = None;
    Ok(Execed { pid: handshake.child.pid, pidfd: handshake.child.pidfd, console: handshake.console })
}

/// Into the cgroup by the clone itself; a group that takes no processes (it enabled controllers for children) is
/// answered by the group of init.
fn spawn_in(
    group: &Group,
    steps: &[Step],
    namespaces: &[(Kind, OwnedFd)],
    body: impl FnOnce() -> i32,
) -> Result<Child, Error> {
    Ok(spawn::spawn(steps, namespaces, group.clone_into(), body)?)
}

fn publish(req: &ExecRequest, handshake: &Handshake<'_>) -> Result<(), Error> {
    if let Some(path) = &req.pidfd_socket {
        let socket = deliver::open_socket(path)?;
        deliver::send_fd(&socket, b"pidfd", handshake.child.pidfd.as_fd())?;
    }
    if let Some(path) = &req.pid_file {
        deliver::write_pid_file(path, handshake.child.pid)?;
    }
    Ok(())
}

fn dup(fd: &OwnedFd) -> Result<OwnedFd, StepError> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| StepError::os("duplicate", fd.as_raw_fd(), e))
}

pub(super) fn duplicate(list: &[(Kind, OwnedFd)]) -> Result<Vec<(Kind, OwnedFd)>, StepError> {
    list.iter().map(|(kind, fd)| Ok((*kind, dup(fd)?))).collect()
}

struct Execing<'a> {
    record: &'a Record,
    child: &'a mut Option<OwnedFd>,
}

impl Parent for Execing<'_> {
    fn moved(&mut self, _pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        *self.child = Some(dup(pidfd)?);
        Ok(())
    }

    fn mounted(&mut self, _pid: i32, _pidfd: &OwnedFd) -> Result<(), Error> {
        Ok(())
    }

    fn source(&mut self, _index: usize, _child: &Child) -> Result<Option<OwnedFd>, Error> {
        // An exec mounts nothing.
        Ok(None)
    }

    fn ready(&mut self, _pid: i32, _pidfd: &OwnedFd) -> Result<(), Error> {
        Ok(())
    }

    fn state(&self) -> State {
        self.record.oci_state(ContainerState::Running)
    }

    fn executes(&self) -> bool {
        true
    }
}

/// Kills and reaps a child whose launch failed.
struct KillGuard(Option<OwnedFd>);

impl Drop for KillGuard {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
