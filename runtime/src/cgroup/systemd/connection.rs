//! A connection to a bus: the socket, the greeting, calls that wait for their answer, and signals on the way.
//!
//! One thread, one socket, a deadline for everything: a manager that hangs makes an error, not a runtime that hangs.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use super::message::{Call, ERROR, METHOD_RETURN, NO_REPLY, Received, SIGNAL};
use crate::cgroup::Error;

/// systemd starts a scope within milliseconds; under load, at boot, it may need seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What a bus says before the first message, a line or two.
const MAX_GREETING: usize = 16 * 1024;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    unread: Vec<u8>,
    /// Signals that came while an answer was awaited.
    signals: VecDeque<Received>,
    end: Instant,
}

/// An error that the other side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `org.freedesktop.systemd1.NoSuchUnit`
    pub(super) name: String,
    pub(super) text: String,
}

impl Connection {
    /// Connects to an address of the form `unix:path=…` or `unix:abstract=…`.
    pub(super) fn open(address: &str) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| refused(&format!("connect to {address}"), error);
        let stream = connect(address).map_err(|error| failed(&error))?;
        let end = Instant::now() + PATIENCE;
        let mut connection = Self { stream, serial: 0, unread: Vec::new(), signals: VecDeque::new(), end };
        connection.authenticate().map_err(|error| failed(&error))?;
        Ok(connection)
    }

    /// Who we are is what the kernel says of the socket. All is sent at once, as sd-bus does.
    fn authenticate(&mut self) -> std::io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        while self.unread.len() <= MAX_GREETING {
            while let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                if line.starts_with(b"OK ") {
                    return Ok(());
                }
                if !line.starts_with(b"DATA") {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
                }
            }
            self.receive()?;
        }
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a greeting without end"))
    }

    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// Of the connection; the other side's refusal is the inner one.
    pub(super) fn call(&mut self, call: Call<'_>, body: &[u8]) -> Result<Result<Received, Refusal>, Error> {
        let failed = |error: &dyn std::fmt::Display| refused(call.member, error);
        self.end = Instant::now() + PATIENCE;
        let serial = self.send(call, body)?;
        loop {
            let message = self.next().map_err(|error| failed(&error))?;
            match message.kind {
                METHOD_RETURN if message.reply_to == serial => return Ok(Ok(message)),
                ERROR if message.reply_to == serial => {
                    let text = message.reader().text().unwrap_or_default();
                    return Ok(Err(Refusal { name: message.error, text }));
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Calls and waits for nothing.
    pub(super) fn tell(&mut self, call: Call<'_>, body: &[u8]) -> Result<(), Error> {
        self.send(Call { flags: NO_REPLY, ..call }, body).map(drop)
    }

    /// The next signal that `wanted` accepts.
    pub(super) fn signal<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Received) -> Option<T>,
    ) -> Result<T, Error> {
        self.end = Instant::now() + PATIENCE;
        loop {
            while let Some(signal) = self.signals.pop_front() {
                if let Some(found) = wanted(&signal) {
                    return Ok(found);
                }
            }
            let message = self.next().map_err(|error| refused(what, &error))?;
            if message.kind == SIGNAL {
                self.signals.push_back(message);
            }
        }
    }

    fn send(&mut self, call: Call<'_>, body: &[u8]) -> Result<u32, Error> {
        self.serial += 1;
        let message = call.render(self.serial, body);
        self.stream.write_all(&message).map_err(|error| refused(call.member, &error))?;
        Ok(self.serial)
    }

    fn next(&mut self) -> std::io::Result<Received> {
        let invalid = |text: &'static str| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        loop {
            if let Some(length) = Received::length(&self.unread).map_err(invalid)?
                && self.unread.len() >= length
            {
                let message: Vec<u8> = self.unread.drain(..length).collect();
                return Received::parse(&message).map_err(invalid);
            }
            self.receive()?;
        }
    }

    /// Reads what is there, waiting until the deadline for it.
    fn receive(&mut self) -> std::io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0_u8; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(std::io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}

pub(super) fn refused(call: &str, message: &dyn std::fmt::Display) -> Error {
    Error::Systemd { call: call.to_owned(), message: message.to_string() }
}

/// The first address of a list that can be reached.
fn connect(addresses: &str) -> std::io::Result<UnixStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::Unsupported, "no address of a unix socket");
    for address in addresses.split(';') {
        let Some(keys) = address.strip_prefix("unix:") else { continue };
        let key = |name: &str| keys.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let attempt = match (key("path"), key("abstract")) {
            (Some(path), _) => UnixStream::connect(unescape(path)),
            (None, Some(name)) => SocketAddr::from_abstract_name(unescape(name))
                .and_then(|address| UnixStream::connect_addr(&address)),
            (None, None) => continue,
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `%20` and its like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unescaped() {
        assert_eq!(unescape("/run/a%20b%2"), "/run/a b%2");
        assert!(connect("tcp:host=a").is_err());
    }

    #[test]
    fn a_bus_that_only_talks_is_an_error() {
        let (stream, mut other) = UnixStream::pair().unwrap();
        let talker = std::thread::spawn(move || while other.write_all(&[b'x'; 4096]).is_ok() {});
        let end = Instant::now() + PATIENCE;
        let mut connection =
            Connection { stream, serial: 0, unread: Vec::new(), signals: VecDeque::new(), end };
        let error = connection.authenticate().unwrap_err();
        drop(connection);
        talker.join().unwrap();
        assert!(error.to_string().contains("without end"), "{error}");
    }

    #[test]
    fn a_bus_that_refuses_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0_u8; 64];
            let _ = stream.read(&mut bytes).unwrap();
            stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        });
        let error = Connection::open(&format!("unix:path={}", path.display())).unwrap_err();
        server.join().unwrap();
        assert!(error.to_string().contains("REJECTED EXTERNAL"), "{error}");
    }
}
