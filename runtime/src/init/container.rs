//! The first process of a container: from the clone to the program.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use oci_spec::runtime::{ContainerState, Hook, State};

use super::net_devices::{self, NetDevice};
use super::program::Program;
use super::rootfs::RootfsHandles;
use super::{StepError, attributes, console, enter, fault, gate, privileges, rootfs, shed, sysctl};
use crate::hooks;
use crate::launch::channel::{Channel, Message};
use crate::plan::RootfsPlan;
use crate::plan::namespaces::{Kind, NamespacePlan};
use crate::sys::{keyring, network};

/// Everything that the first process does and has.
#[derive(Debug)]
pub struct Container {
    pub namespaces: NamespacePlan,
    pub handles: enter::Handles,
    /// `None` without a mount namespace: the root is left alone.
    pub rootfs: RootfsPlan,
    pub sources: RootfsHandles,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctls: Vec<(String, String)>,
    pub net_devices: Vec<NetDevice>,
    pub keyring: Option<CString>,
    pub streams: Option<[OwnedFd; 3]>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub state: State,
    /// The exec fifo, O_PATH.
    pub gate: OwnedFd,
    pub program: Program,
}

/// Runs in the child: walks all steps; comes back only with a failure, which the parent has been told.
pub fn run(container: &mut Container, channel: Channel) -> i32 {
    let result = first(container, &channel).and_then(|again| match again {
        Some(flags) => second_clone(container, &channel, flags),
        None => rest(container, &channel).map(|()| None),
    });
    finish(result, container, channel)
}

/// Reports a failure, or passes the gate and executes.
fn finish(result: Result<Option<i32>, StepError>, container: &mut Container, channel: Channel) -> i32 {
    match result {
        Ok(Some(code)) => code,
        Ok(None) => {
            // The end of file tells the parent that all went well.
            drop(channel);
            gate_and_exec(container)
        }
        Err(error) => {
            let _ = channel.send(&Message::Failed(error), None);
            1
        }
    }
}

fn first(container: &mut Container, channel: &Channel) -> Result<Option<u64>, StepError> {
    let new_user = container.namespaces.is_new(Kind::User);
    // Without privilege the parent can write the maps only of a dumpable process; nobody else can reach it yet.
    if new_user && container.handles.unprivileged {
        shed::redump()?;
    }
    if let Some(streams) = &container.streams {
        shed::streams(streams)?;
    }
    shed::descriptors(container.program.process.preserve_fds, descriptors(container, channel))?;
    container.program.open_proc()?;
    fault("create.init.descriptors")?;
    channel.wait_go()?;
    shed::undump()?;
    fault("create.init.namespaces")?;
    let again = enter::walk(&container.namespaces.steps, &container.handles)?;
    container.handles.close();
    attributes::reset_affinity();
    Ok(again)
}

fn descriptors(container: &Container, channel: &Channel) -> Vec<RawFd> {
    let mut keep: Vec<RawFd> = container.handles.namespaces.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    keep.extend(container.handles.tasks.iter().map(AsRawFd::as_raw_fd));
    keep.extend(container.sources.as_fds().map(|fd| fd.as_raw_fd()));
    keep.extend([container.gate.as_raw_fd(), channel.as_fd().as_raw_fd()]);
    keep
}

/// The second child goes on in our place, as our parent's child.
fn second_clone(container: &mut Container, channel: &Channel, flags: u64) -> Result<Option<i32>, StepError> {
    enter::clone_again(channel, flags, || {
        container.program.open_proc()?;
        rest(container, channel)
    })
}

fn rest(container: &mut Container, channel: &Channel) -> Result<(), StepError> {
    fault("create.init.session")?;
    session(container)?;
    if container.namespaces.is_new(Kind::Net) {
        network::loopback_up().map_err(|e| StepError::io("bring up", "lo", &e))?;
    }
    root(container, channel)?;
    fault("create.init.names")?;
    names(container)?;
    fault("create.init.sysctls")?;
    sysctl::apply(&container.sysctls)?;
    if container.rootfs.mount_namespace {
        fault("create.init.restrictions")?;
        rootfs::finish(&container.rootfs, &mut container.sources)?;
    }
    fault("create.init.attributes")?;
    attributes::apply(&container.program)?;
    channel.send(&Message::Ready, None)?;
    channel.wait_go()?;
    fault("create.init.privileges")?;
    privileges::give_up(&mut container.program, channel)
}

fn session(container: &Container) -> Result<(), StepError> {
    rustix::process::setsid().map_err(|e| StepError::os("make session", "", e))?;
    let Some(name) = &container.keyring else { return Ok(()) };
    match keyring::join_session(name) {
        // A kernel without keyrings, or a filter that hides them: there is nothing to share either.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS)) => Ok(()),
        other => other.map_err(|e| StepError::io("create session keyring", name.to_string_lossy(), &e)),
    }
}

fn root(container: &mut Container, channel: &Channel) -> Result<(), StepError> {
    if container.rootfs.mount_namespace {
        fault("create.init.mounts")?;
        let mut ask = |index| channel.ask_for_source(index);
        rootfs::prepare(&container.rootfs, &mut container.sources, &mut ask)?;
    }
    channel.send(&Message::Mounted, None)?;
    channel.wait_go()?;
    fault("create.init.pivot")?;
    net_devices::configure(&container.net_devices)?;
    if container.rootfs.mount_namespace && !container.create_container.is_empty() {
        rootfs::enter(&mut container.sources)?;
    }
    run_hooks(
        hooks::Stage::CreateContainer,
        &container.create_container,
        container,
        ContainerState::Creating,
    )?;
    if container.rootfs.mount_namespace {
        rootfs::pivot(&container.rootfs, &mut container.sources)?;
    } else {
        privileges::chroot(&container.rootfs.root)?;
    }
    let process = &container.program.process;
    if process.terminal {
        let terminal = console::open(process.console_size)?;
        if container.rootfs.mount_namespace {
            rootfs::bind_console(&container.rootfs, &mut container.sources, terminal.slave.as_fd())?;
        }
        channel.send(&Message::Console, Some(terminal.master.as_fd()))?;
        console::adopt(&terminal.slave)?;
    }
    Ok(())
}

fn names(container: &Container) -> Result<(), StepError> {
    if let Some(name) = container.hostname.as_ref().filter(|n| !n.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| StepError::os("set hostname", name, e))?;
    }
    if let Some(name) = container.domainname.as_ref().filter(|n| !n.is_empty()) {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| StepError::os("set domainname", name, e))?;
    }
    Ok(())
}

fn gate_and_exec(container: &mut Container) -> i32 {
    let result = gate::pass(&container.gate, &container.program)
        .and_then(|()| {
            run_hooks(
                hooks::Stage::StartContainer,
                &container.start_container,
                container,
                ContainerState::Created,
            )
        })
        .and_then(|()| fault("create.init.program"))
        .and_then(|()| container.program.execute());
    if let Err(error) = result {
        // Nobody listens any more but the container's own log.
        let _ = rustix::io::write(std::io::stderr(), format!("{error}\n").as_bytes());
    }
    1
}

fn run_hooks(
    stage: hooks::Stage,
    list: &[Hook],
    container: &Container,
    status: ContainerState,
) -> Result<(), StepError> {
    if list.is_empty() {
        return Ok(());
    }
    let mut state = container.state.clone();
    state.set_pid(Some(rustix::process::getpid().as_raw_nonzero().get()));
    state.set_status(status);
    // Inside the container a hook without an environment of its own has the program's.
    let environment: Vec<_> = match stage {
        hooks::Stage::StartContainer => container.program.environment(),
        _ => std::env::vars_os().collect(),
    };
    hooks::run(stage, list, &state, &environment).map_err(|e| StepError::why("run hooks", stage.as_str(), e))
}
