//! `linux.netDevices`: devices of the host that are moved into the container's network namespace, with their addresses.
//!
//! The parent reads the addresses and moves the devices by rtnetlink(7) once the child is in its namespace; the child
//! gives each its addresses back, which the kernel drops on the way, and sets it up.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::StepError;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST_ACK: u16 = 0x05;
const REQUEST_DUMP: u16 = 0x301;
const CREATE_EXCL: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_PID: u16 = 19;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// Address, local and broadcast: what makes an address.
const KEPT: [u16; 3] = [1, 2, 4];
const IFF_UP: u32 = 1;
const HEADER: usize = 16;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    host: String,
    container: String,
    addresses: Vec<Address>,
}

/// A permanent global address: the start of `ifaddrmsg` and the attributes as the kernel gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Parent: the devices of `spec` with their addresses, in order of name.
///
/// # Errors
/// A device that is not there.
pub fn find(spec: &Spec) -> Result<Vec<NetDevice>, StepError> {
    let Some(wanted) = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref()) else {
        return Ok(Vec::new());
    };
    let mut devices = Vec::new();
    for (host, device) in wanted {
        let failed = |e| StepError::os("find network device", host, e);
        let socket = open().map_err(failed)?;
        let index = name_to_index(&socket, host).map_err(failed)?;
        let addresses = addresses(&socket, index).map_err(failed)?;
        let container = device.name().clone().filter(|n| !n.is_empty()).unwrap_or_else(|| host.clone());
        devices.push(NetDevice { host: host.clone(), container, addresses });
    }
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(devices)
}

/// Parent: moves the devices into the network namespace of `pid`.
///
/// # Errors
/// A name that is taken there; the kernel's.
pub fn move_to(pid: i32, devices: &[NetDevice]) -> Result<(), StepError> {
    for device in devices {
        let failed = |e| StepError::os("move network device", &device.host, e);
        let socket = open().map_err(failed)?;
        let index = name_to_index(&socket, &device.host).map_err(failed)?;
        let mut body = link(index, 0);
        attribute(&mut body, IFLA_NET_NS_PID, &pid.to_ne_bytes());
        attribute(&mut body, IFLA_IFNAME, &[device.container.as_bytes(), &[0]].concat());
        request(&socket, RTM_NEWLINK, REQUEST_ACK, &body).map_err(failed)?;
    }
    Ok(())
}

/// Child: gives the devices their addresses and sets them up.
///
/// # Errors
/// The kernel's.
pub fn configure(devices: &[NetDevice]) -> Result<(), StepError> {
    for device in devices {
        let failed = |e| StepError::os("configure network device", &device.container, e);
        let socket = open().map_err(failed)?;
        let index = name_to_index(&socket, &device.container).map_err(failed)?;
        for address in &device.addresses {
            let mut body = vec![address.family, address.prefix, 0, 0];
            body.extend(index.to_ne_bytes());
            for (kind, value) in &address.attributes {
                attribute(&mut body, *kind, value);
            }
            match request(&socket, RTM_NEWADDR, REQUEST_ACK | CREATE_EXCL, &body) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        request(&socket, RTM_NEWLINK, REQUEST_ACK, &link(index, IFF_UP)).map_err(failed)?;
    }
    Ok(())
}

fn open() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn send_message(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::TOOBIG)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(socket, &message, SendFlags::empty()).map(drop)
}

/// Sends a request and takes its acknowledgement.
fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    send_message(socket, kind, flags, body)?;
    let mut buffer = vec![0; 8192];
    let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
    let code =
        messages(&buffer[..length]).find(|(kind, _)| *kind == NLMSG_ERROR).and_then(|(_, body)| number(body));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code.cast_signed().saturating_neg())),
        None => Err(Errno::PROTO),
    }
}

fn addresses(socket: &OwnedFd, index: u32) -> Result<Vec<Address>, Errno> {
    send_message(socket, RTM_GETADDR, REQUEST_DUMP, &[0; 8])?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        for (kind, body) in messages(&buffer[..length]) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(Errno::PROTO),
                _ => found.extend(parse_address(body, index)),
            }
        }
    }
}

fn parse_address(body: &[u8], index: u32) -> Option<Address> {
    let (&[family, prefix, flags, scope], rest) = body.split_first_chunk::<4>()?;
    if number(rest)? != index || scope != 0 {
        return None;
    }
    let all: Vec<(u16, Vec<u8>)> = attributes(rest.get(4..)?).collect();
    let flags =
        all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, v)| number(v)).unwrap_or(flags.into());
    if flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let attributes = all.into_iter().filter(|(kind, _)| KEPT.contains(kind)).collect();
    Some(Address { family, prefix, attributes })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

/// Type and body of each message of a datagram.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = number(rest)? as usize;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk::<2>()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(*rest.first_chunk::<2>()?) as usize;
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk::<2>()?);
        let value = rest.get(4..length)?.to_vec();
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_come_back() {
        let mut body = Vec::new();
        attribute(&mut body, 3, b"eth0\0");
        attribute(&mut body, 19, &7_u32.to_ne_bytes());
        assert_eq!(body.len(), 12 + 8);
        let all: Vec<_> = attributes(&body).collect();
        assert_eq!(all, [(3, b"eth0\0".to_vec()), (19, 7_u32.to_ne_bytes().to_vec())]);
    }

    #[test]
    fn only_permanent_global_addresses_of_the_device_are_kept() {
        let message = |scope: u8, flags: u8, index: u32| {
            let mut body = vec![2, 24, flags, scope];
            body.extend(index.to_ne_bytes());
            attribute(&mut body, 1, &[10, 0, 0, 1]);
            attribute(&mut body, 3, b"lab\0");
            body
        };
        let kept = parse_address(&message(0, 0x80, 5), 5).unwrap();
        assert_eq!((kept.prefix, kept.attributes), (24, vec![(1, vec![10, 0, 0, 1])]));
        assert_eq!(parse_address(&message(254, 0x80, 5), 5), None);
        assert_eq!(parse_address(&message(0, 0, 5), 5), None);
        assert_eq!(parse_address(&message(0, 0x80, 6), 5), None);
        assert_eq!(parse_address(&[1, 2], 5), None);
    }
}
