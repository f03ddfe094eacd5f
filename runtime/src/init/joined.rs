//! Another process in a running container (`exec`): from the clone to the program.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::program::Program;
use super::{StepError, attributes, console, enter, privileges, shed};
use crate::launch::channel::{Channel, Message};
use crate::plan::namespaces::Step;

/// Everything that the process does and has.
#[derive(Debug)]
pub struct Joined {
    pub steps: Vec<Step>,
    pub handles: enter::Handles,
    pub streams: Option<[OwnedFd; 3]>,
    pub program: Program,
}

/// Runs in the child: walks all steps and executes; comes back only with a failure, which the parent has been told.
pub fn run(joined: &mut Joined, channel: Channel) -> i32 {
    let result = first(joined, &channel).and_then(|again| match again {
        Some(flags) => enter::clone_again(&channel, flags, || rest(joined, &channel)),
        None => rest(joined, &channel).map(|()| None),
    });
    let result = match result {
        Ok(Some(code)) => return code,
        Ok(None) => joined.program.execute(),
        Err(error) => Err(error),
    };
    // The socket closes itself on a successful exec.
    if let Err(error) = result {
        let _ = channel.send(&Message::Failed(error), None);
    }
    255
}

fn first(joined: &mut Joined, channel: &Channel) -> Result<Option<u64>, StepError> {
    shed::undump()?;
    if let Some(streams) = &joined.streams {
        shed::streams(streams)?;
    }
    shed::descriptors(joined.program.process.preserve_fds, descriptors(joined, channel))?;
    attributes::initial_affinity(&joined.program)?;
    joined.program.open_proc()?;
    super::fault("exec.init.descriptors")?;
    channel.wait_go()?;
    super::fault("exec.init.namespaces")?;
    let again = enter::walk(&joined.steps, &joined.handles)?;
    joined.handles.close();
    attributes::final_affinity(&joined.program)?;
    Ok(again)
}

fn descriptors(joined: &Joined, channel: &Channel) -> Vec<RawFd> {
    let mut keep: Vec<RawFd> = joined.handles.namespaces.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    keep.extend(joined.handles.tasks.iter().map(AsRawFd::as_raw_fd));
    keep.push(channel.as_fd().as_raw_fd());
    keep
}

fn rest(joined: &mut Joined, channel: &Channel) -> Result<(), StepError> {
    rustix::process::setsid().map_err(|e| StepError::os("make session", "", e))?;
    let process = &joined.program.process;
    if process.terminal {
        let terminal = console::open(process.console_size)?;
        channel.send(&Message::Console, Some(terminal.master.as_fd()))?;
        console::adopt(&terminal.slave)?;
    }
    super::fault("exec.init.attributes")?;
    attributes::apply(&joined.program)?;
    channel.send(&Message::Ready, None)?;
    channel.wait_go()?;
    super::fault("exec.init.privileges")?;
    privileges::give_up(&mut joined.program, channel)
}
