//! Which protocol a client and this server speak: decided from the headers of the upgrade request alone.

use http::{HeaderMap, HeaderName, header};

use super::tokens::Ticket;
use super::websocket::Form;

/// How the protocol of a SPDY connection is named.
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What would have been accepted.
pub(super) const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What is asked for at a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
    PortForward,
}

impl Kind {
    pub(super) const fn of(ticket: &Ticket) -> Self {
        match ticket {
            Ticket::Exec(_) => Self::Exec,
            Ticket::Attach(_) => Self::Attach,
            Ticket::PortForward(_) => Self::PortForward,
        }
    }

    /// The first part of the path.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }

    pub(super) fn named(path: &str) -> Option<Self> {
        [Self::Exec, Self::Attach, Self::PortForward].into_iter().find(|kind| kind.path() == path)
    }
}

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protocol {
    Spdy {
        name: String,
        json_status: bool,
        resize: bool,
    },
    WebSocket {
        name: String,
        form: Form,
        json_status: bool,
    },
    /// SPDY inside the messages of a WebSocket.
    Tunnel {
        name: String,
    },
}

/// Why there is no protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Neither SPDY nor a WebSocket is asked for.
    NoUpgrade,
    /// Of the protocols that are asked for none is known; these are.
    NoProtocol(&'static [&'static str]),
}

const SPDY_STREAMS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const SPDY_PORTS: &[&str] = &["portforward.k8s.io"];
const WEBSOCKET_STREAMS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
const WEBSOCKET_PORTS: &[&str] = &["v4.channel.k8s.io", "v4.base64.channel.k8s.io", TUNNEL];

pub(super) fn negotiate(kind: Kind, headers: &HeaderMap) -> Result<Protocol, Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") && headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return websocket(kind, headers);
    }
    if !upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        return Err(Refusal::NoUpgrade);
    }
    let known = if kind == Kind::PortForward { SPDY_PORTS } else { SPDY_STREAMS };
    // Who names none speaks the oldest.
    let oldest = known.last().copied().unwrap_or_default();
    let name = choose(headers, &STREAM_PROTOCOL, known, oldest)?;
    Ok(Protocol::Spdy {
        json_status: name.starts_with("v4."),
        resize: name.starts_with("v4.") || name.starts_with("v3."),
        name,
    })
}

fn websocket(kind: Kind, headers: &HeaderMap) -> Result<Protocol, Refusal> {
    let known = if kind == Kind::PortForward { WEBSOCKET_PORTS } else { WEBSOCKET_STREAMS };
    let name = choose(headers, &header::SEC_WEBSOCKET_PROTOCOL, known, "")?;
    if name == TUNNEL {
        return Ok(Protocol::Tunnel { name });
    }
    let form = Form { base64: name.contains("base64"), half_close: name.starts_with("v5.") };
    let json_status = name.starts_with("v4.") || name.starts_with("v5.");
    Ok(Protocol::WebSocket { name, form, json_status })
}

/// The first of the client's protocols that is known.
fn choose(
    headers: &HeaderMap,
    name: &HeaderName,
    known: &'static [&'static str],
    unnamed: &str,
) -> Result<String, Refusal> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let asked: Vec<&str> =
        values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect();
    if asked.is_empty() {
        return Ok(unnamed.to_owned());
    }
    let found = asked.into_iter().find(|protocol| known.contains(protocol));
    found.map(str::to_owned).ok_or(Refusal::NoProtocol(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_clients_first_known_protocol_counts() {
        let spdy = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        let name = "v4.channel.k8s.io".into();
        assert_eq!(
            negotiate(Kind::Exec, &spdy),
            Ok(Protocol::Spdy { name, json_status: true, resize: true })
        );
        assert_eq!(negotiate(Kind::PortForward, &spdy), Err(Refusal::NoProtocol(SPDY_PORTS)));
        let oldest = Protocol::Spdy { name: "channel.k8s.io".into(), json_status: false, resize: false };
        assert_eq!(negotiate(Kind::Attach, &headers(&[("upgrade", "spdy/3.1")])), Ok(oldest));
        assert_eq!(negotiate(Kind::Exec, &headers(&[])), Err(Refusal::NoUpgrade));
    }

    #[test]
    fn a_websocket_has_forms() {
        let asked = |protocols| {
            let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            headers(&[("upgrade", "websocket"), key, ("sec-websocket-protocol", protocols)])
        };
        let expect = |name: &str, base64, half_close, json_status| {
            Ok(Protocol::WebSocket { name: name.into(), form: Form { base64, half_close }, json_status })
        };
        let table = [
            ("v5.channel.k8s.io, v4.channel.k8s.io", expect("v5.channel.k8s.io", false, true, true)),
            ("v4.base64.channel.k8s.io", expect("v4.base64.channel.k8s.io", true, false, true)),
            ("base64.channel.k8s.io", expect("base64.channel.k8s.io", true, false, false)),
            ("", expect("", false, false, false)),
        ];
        for (protocols, expected) in table {
            assert_eq!(negotiate(Kind::Exec, &asked(protocols)), expected, "{protocols}");
        }
        let tunnel = negotiate(Kind::PortForward, &asked("SPDY/3.1+portforward.k8s.io"));
        assert_eq!(tunnel, Ok(Protocol::Tunnel { name: TUNNEL.into() }));
    }
}
