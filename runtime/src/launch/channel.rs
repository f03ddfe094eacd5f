//! The handshake between a container's parent and its child: JSON messages with descriptors over a seqpacket socket.
//!
//! ```text
//! child ──▶ parent                       parent ──▶ child
//! (cloned)                               Go        id maps are written
//! Again + pidfd    a second clone        Go        to the second one: it is followed
//! Source n         a bind source is needed   Source n + fd, opened in the child's mount namespace, or without
//! Mounted          mounts and /dev done  Go        devices, prestart and createRuntime hooks done
//! Console + fd     the terminal's master
//! Ready            only privileges left  Go        the record is written
//! Listener + fd    seccomp's listener    Go
//! Failed           the step that failed
//! (end of file)    the child is at its start gate, or executes
//! ```
//! Nobody waits with a deadline: the parent also sees the child's pidfd, the child the end of file.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::init::StepError;

/// The largest message; a step error is a few hundred bytes. Small enough for the stack: a larger buffer from the heap
/// would be cleared for each message, page by page.
const LIMIT: usize = 8 * 1024;

/// What is left of a text in a message that would be larger than [`LIMIT`]; escaped, a byte becomes six.
const CUT: usize = 400;

/// One message in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Parent: go on.
    Go,
    /// Child: a second child took over; its pidfd comes along.
    Again,
    /// Child: the source of this mount is out of its reach; parent: here it is, or it is out of reach for both.
    Source(usize),
    /// Child: mounts and devices are made, the root is not yet changed.
    Mounted,
    /// Child: the terminal's master comes along.
    Console,
    /// Child: everything but the final loss of privileges is done.
    Ready,
    /// Child: seccomp's listener comes along.
    Listener,
    /// Child: a step failed, and the child ends.
    Failed(StepError),
}

/// One end of the handshake.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What the parent got.
#[derive(Debug)]
pub enum Received {
    /// A message and the descriptor that came with it.
    Message(Message, Option<OwnedFd>),
    /// The other end is closed: on exec, or at the start gate.
    Closed,
    /// The child died without closing in order.
    Died,
}

impl Channel {
    /// Makes both ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> Result<(Self, Self), StepError> {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map(|(a, b)| (Self(a), Self(b)))
            .map_err(|e| StepError::os("make handshake socket", "", e))
    }

    /// Sends `message`, with a descriptor.
    ///
    /// # Errors
    /// EPIPE when the other end is gone.
    pub fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), StepError> {
        let encode = |message: &Message| {
            serde_json::to_vec(message).map_err(|e| StepError::why("send", "handshake message", e))
        };
        let mut bytes = encode(message)?;
        if let (Message::Failed(error), true) = (message, bytes.len() > LIMIT) {
            bytes = encode(&Message::Failed(error.shortened(CUT)))?;
        }
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        });
        sent.map(drop).map_err(|e| StepError::os("send", "handshake message", e))
    }

    /// Receives one message; `None` at the end of file.
    ///
    /// # Errors
    /// The kernel's, or a message that is none.
    pub fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>, StepError> {
        let mut buffer = [0; LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(e) => return Err(StepError::os("receive", "handshake message", e)),
        };
        if length == 0 {
            return Ok(None);
        }
        let fd = control
            .drain()
            .find_map(|m| if let RecvAncillaryMessage::ScmRights(mut fds) = m { fds.next() } else { None });
        let message = serde_json::from_slice(&buffer[..length])
            .map_err(|e| StepError::why("receive", "handshake message", e))?;
        Ok(Some((message, fd)))
    }

    /// Child: waits for [`Message::Go`].
    ///
    /// # Errors
    /// The parent is gone.
    pub fn wait_go(&self) -> Result<(), StepError> {
        match self.receive()? {
            Some((Message::Go, _)) => Ok(()),
            _ => Err(StepError::why("wait for the parent", "", "it is gone")),
        }
    }

    /// Child: asks for the source of mount `index`.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn ask_for_source(&self, index: usize) -> Result<Option<OwnedFd>, StepError> {
        self.send(&Message::Source(index), None)?;
        match self.receive()? {
            Some((Message::Source(given), fd)) if given == index => Ok(fd),
            _ => Err(StepError::why("wait for the parent", "", "it is gone")),
        }
    }

    /// Parent: waits for a message, the end of file, or the child's death.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self, pidfd: &OwnedFd) -> Result<Received, StepError> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))
            .map_err(|e| StepError::os("wait for init", "", e))?;
        let dead = !fds[1].revents().is_empty();
        // What a dying child still said comes first.
        if !fds[0].revents().is_empty() {
            return match self.receive()? {
                Some((message, fd)) => Ok(Received::Message(message, fd)),
                None if dead => Ok(Received::Died),
                None => Ok(Received::Closed),
            };
        }
        Ok(Received::Died)
    }
}

/// A seqpacket socket whose other end speaks the same protocol.
impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&Message::Console, Some(file.as_fd())).unwrap();
        let (message, fd) = b.receive().unwrap().unwrap();
        assert_eq!(message, Message::Console);
        assert!(fd.is_some());
        drop(a);
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn a_long_error_arrives_cut() {
        let (a, b) = Channel::pair().unwrap();
        let error = StepError::why("mount", "\u{1}ä".repeat(9000), "\u{1}".repeat(9000));
        a.send(&Message::Failed(error), None).unwrap();
        let Some((Message::Failed(error), None)) = b.receive().unwrap() else { panic!("no error came") };
        assert_eq!(error.step, "mount");
        assert!(error.object.starts_with("\u{1}ä") && error.object.ends_with('…'), "{error:?}");
        assert!(error.cause.len() < 500, "{error:?}");
    }
}
