//! The end of a tunnel, for targets without the agent's: takes IP in IP, GRE and GUE off what arrives at one interface and
//! puts what was inside before the kernel on another, one end of a veth pair.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, sendto, socket,
    },
};

const ETHERNET: usize = 14;
const GUE_PORT: u16 = 6080;

/// Unwraps for ever what comes to `from`; what was inside goes out of `to`, to the station `mac`.
pub fn tunnel_end(from: &str, to: &str, mac: [u8; 6]) -> Result<()> {
    let (arriving, own) = packet_socket(from, SockProtocol::EthAll)?;
    let (leaving, interface) = packet_socket(to, SockProtocol::EthAll)?;
    let own = own.addr().context("the interface has no address")?;
    println!("listening");
    let mut bytes = vec![0; 1 << 16];
    let started = Instant::now();
    loop {
        let length = match recv(arriving.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => length,
            // The interface is only just coming up.
            Err(_) if started.elapsed() < Duration::from_secs(5) => continue,
            Err(error) => return Err(error).context("cannot receive"),
        };
        let frame = &bytes[..length];
        if frame.len() < ETHERNET || frame[..6] != own {
            continue;
        }
        if let Some((ether_type, inner)) = unwrapped(frame) {
            let mut out = [&mac[..], &own, &ether_type.to_be_bytes(), inner].concat();
            out.truncate(1514);
            // What the veth does not take is lost, as on any link.
            let _ = sendto(leaving.as_raw_fd(), &out, &interface, MsgFlags::empty());
        }
    }
}

fn packet_socket(name: &str, protocol: SockProtocol) -> Result<(OwnedFd, LinkAddr)> {
    let interface = getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {name}"))?;
    ensure!(interface.family() == Some(AddressFamily::Packet), "{name} is no link");
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), protocol).context("no packet socket")?;
    bind(socket.as_raw_fd(), &interface).with_context(|| format!("cannot bind to {name}"))?;
    Ok((socket, interface))
}

/// The EtherType and bytes of what a tunnel's packet carries.
fn unwrapped(frame: &[u8]) -> Option<(u16, &[u8])> {
    let packet = &frame[ETHERNET..];
    let (protocol, length, rest) = match [frame[12], frame[13]] {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            (*packet.get(9)?, total.checked_sub(header)?, packet.get(header..)?)
        }
        [0x86, 0xdd] => {
            let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            (*packet.get(6)?, length, packet.get(40..)?)
        }
        _ => return None,
    };
    let payload = rest.get(..length)?;
    let of_ip = |number: u8| match number {
        4 => Some(0x0800),
        41 => Some(0x86dd),
        _ => None,
    };
    match protocol {
        4 | 41 => Some((of_ip(protocol)?, payload)),
        47 => Some((u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]), payload.get(4..)?)),
        17 if payload.get(2..4)? == GUE_PORT.to_be_bytes() => Some((of_ip(*payload.get(9)?)?, payload.get(12..)?)),
        _ => None,
    }
}
