//! Terminals: a pseudo-terminal as a caller's console, and the socket on which a runtime hands one over.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;

use crate::runtime::{Outcome, wait};

/// Runs `command` with a new terminal as its input, output and error; what it printed there.
pub fn call_on_terminal(mut command: Command, deadline: Duration) -> Outcome {
    let (mut master, slave) = open_pair();
    let copy = || slave.try_clone().expect("another descriptor of the terminal");
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    // The command holds its own copies until it is dropped, and the end of the output is the last one's closing.
    drop((slave, command));
    let reader = std::thread::spawn(move || read_to_end(&mut master));
    let status = wait(&mut child, deadline);
    let stdout = reader.join().expect("reader of the terminal");
    Outcome {
        stdout,
        stderr: String::new(),
        code: status.and_then(|status| status.code()),
        timed_out: status.is_none(),
    }
}

fn open_pair() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("/dev/ptmx");
    grantpt(&master).expect("grantpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname(&master, Vec::new()).expect("ptsname");
    let path = Path::new(name.to_str().expect("name of the terminal"));
    let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).expect("size of the terminal");
    let slave = File::options().read(true).write(true).open(path).expect("terminal");
    (File::from(master), slave)
}

/// Reads until the last holder of the other side has closed it, which a terminal reports as EIO.
pub fn read_to_end(terminal: &mut File) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut events = [PollFd::new(&*terminal, PollFlags::IN)];
        let ready = poll(&mut events, Some(&Timespec { tv_sec: 20, tv_nsec: 0 }));
        match ready.map(|_| terminal.read(&mut buffer)) {
            Ok(Ok(count)) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

/// A socket for `--console-socket`.
pub struct ConsoleSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    pub fn create(directory: &Path) -> Self {
        let path = directory.join("console.sock");
        let listener = UnixListener::bind(&path).expect("console socket");
        Self { path, listener }
    }

    /// Takes the terminal that the runtime sent and the name that came with it.
    pub fn receive(&self) -> (File, String) {
        let (stream, _) = self.listener.accept().expect("connection on the console socket");
        let mut bytes = [0; 256];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .expect("message on the console socket")
                .bytes;
        let descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        let first = descriptors.into_iter().next().expect("a descriptor on the console socket");
        (File::from(first), String::from_utf8_lossy(&bytes[..count]).into_owned())
    }
}
