//! One HTTP request, as small as it can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);

/// Most that is read of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// `GET /`: the status line and the body's first line; None while nobody listens yet.
pub fn get(address: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).ok()?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Option<(String, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.to_owned();
    let title = body.lines().find(|line| line.contains("title")).or_else(|| body.lines().next());
    Some((status, title.unwrap_or_default().trim().to_owned()))
}

/// `count` ports from `first` on that nobody listens at.
pub fn free_ports(first: u16, count: usize) -> Vec<u16> {
    (first..u16::MAX).filter(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_first_line() {
        let answer = parse("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello\nmore");
        assert_eq!(answer, Some(("HTTP/1.1 200 OK".into(), "hello".into())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), None);
    }
}
