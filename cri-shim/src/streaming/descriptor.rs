//! Pipes and terminals of a process, for async code.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Most bytes of one read.
const CHUNK: usize = 32 * 1024;

/// An end of a pipe, or a terminal's master.
#[derive(Debug)]
pub(super) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        watch(fd).map(Self)
    }

    /// The next bytes; none at the end.
    pub(super) async fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0u8; CHUNK];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut bytes[..]) {
                Ok(count) => {
                    bytes.truncate(count);
                    return Ok(bytes.into());
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::IO) => return Ok(Bytes::new()), // the last user of a terminal has closed it
                Err(e) => return Err(e.into()),
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match rustix::io::write(self.0.get_ref(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Registers a descriptor with the event loop. `T` owns it as long as it lives; that is what tokio asks for since it found
/// that it cannot be told from the type, in a function that is unsafe for this reason alone.
#[allow(deprecated)]
pub(super) fn watch<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}
