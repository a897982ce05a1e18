//! Malformed and random packets, as a hostile or broken neighbour would send them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket},
};

use super::frame::scramble;

const MIN_FRAME: usize = 14;
const MAX_FRAME: usize = 1514;
/// Frames between two readings of the clock.
const PACED: u64 = 32;

#[derive(Clone, Debug)]
pub struct SpraySettings {
    pub interface: String,
    /// The port's Ethernet address.
    pub to: [u8; 6],
    pub vipa: Ipv4Addr,
    pub port: u16,
    pub count: u64,
    pub seed: u64,
    /// Frames a second; `None`: as fast as the link takes them.
    pub per_second: Option<u32>,
}

/// Sends `count` frames, each damaged in a way of its own.
pub fn spray(settings: &SpraySettings) -> Result<()> {
    send(settings, |own, number| spoilt(settings, own, number))
}

/// Sends `count` SYNs, each of another client that will never answer.
pub fn flood(settings: &SpraySettings) -> Result<()> {
    let mut frame = Vec::new();
    send(settings, |own, number| {
        if frame.is_empty() {
            frame = tcp(settings, own, 0x02, 0);
        }
        let drawn = scramble(settings.seed ^ scramble(number)).to_be_bytes();
        // 198.18.0.0/15 is for such tests (RFC 2544).
        frame[26..30].copy_from_slice(&[198, 18 | drawn[0] & 1, drawn[1], drawn[2]]);
        frame[34..36].copy_from_slice(&drawn[3..5]);
        fill_checksums(&mut frame);
        frame.clone()
    })
}

fn send(settings: &SpraySettings, mut frame: impl FnMut([u8; 6], u64) -> Vec<u8>) -> Result<()> {
    let wire = Wire::open(&settings.interface)?;
    let begin = Instant::now();
    for number in 0..settings.count {
        if let Some(pace) = settings.per_second
            && number % PACED == 0
        {
            let due = begin + Duration::from_secs_f64(number as f64 / f64::from(pace));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        wire.send(&frame(wire.own, number))?;
    }
    Ok(())
}

/// An interface to which whole frames are written.
pub(super) struct Wire {
    raw: OwnedFd,
    interface: LinkAddr,
    /// The interface's Ethernet address.
    pub(super) own: [u8; 6],
}

impl Wire {
    pub(super) fn open(name: &str) -> Result<Self> {
        let all = getifaddrs().context("cannot list the interfaces")?;
        let interface = all
            .filter(|entry| entry.interface_name == name)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .with_context(|| format!("there is no interface {name}"))?;
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).context("no packet socket")?;
        let own = interface.addr().context("the interface has no address")?;
        debug_assert_eq!(interface.family(), Some(AddressFamily::Packet));
        Ok(Self { raw, interface, own })
    }

    /// Sends a frame; a link that takes no more at the moment loses it.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        match sendto(self.raw.as_raw_fd(), frame, &self.interface, MsgFlags::empty()) {
            Ok(_) | Err(nix::Error::ENOBUFS) => Ok(()),
            Err(error) => Err(error).context("cannot send"),
        }
    }
}

/// Computes both checksums of a frame of [`tcp`], which targets verify.
pub(super) fn fill_checksums(frame: &mut [u8]) {
    frame[24..26].fill(0);
    frame[50..52].fill(0);
    let ip = sum(&frame[14..34]);
    let tcp = 6 + (frame.len() - 34) as u32 + sum(&frame[26..34]) + sum(&frame[34..]);
    frame[24..26].copy_from_slice(&folded(ip).to_be_bytes());
    frame[50..52].copy_from_slice(&folded(tcp).to_be_bytes());
}

/// One of five kinds, by its number: random bytes; a random packet behind a good Ethernet header; a good SYN cut short;
/// a good SYN with bytes changed; a segment of a connection that does not exist.
fn spoilt(settings: &SpraySettings, own: [u8; 6], number: u64) -> Vec<u8> {
    let mut chance = scramble(settings.seed ^ scramble(number));
    let mut draw = |below: usize| {
        chance = scramble(chance);
        (chance >> 16) as usize % below
    };
    let mut random = |length: usize| -> Vec<u8> { (0..length).map(|_| draw(256) as u8).collect() };
    match number % 5 {
        0 => {
            let length = MIN_FRAME + usize::from(u16::from_le_bytes([random(1)[0], random(1)[0] & 5]));
            let mut frame = random(length.min(MAX_FRAME));
            frame[..6].copy_from_slice(&settings.to);
            frame
        }
        1 => {
            let mut frame = tcp(settings, own, 0x02, 40_000);
            let length = random(1)[0] as usize;
            frame.truncate(14);
            frame.extend(random(length));
            frame
        }
        2 => {
            let mut frame = tcp(settings, own, 0x02, 40_001);
            frame.truncate(MIN_FRAME + random(1)[0] as usize % 40);
            frame
        }
        3 => {
            let mut frame = tcp(settings, own, 0x02, 40_002);
            for _ in 0..=random(1)[0] % 4 {
                let at = 12 + random(1)[0] as usize % (frame.len() - 12);
                frame[at] ^= random(1)[0] | 1;
            }
            frame
        }
        _ => tcp(settings, own, [0x10, 0x11, 0x18, 0x00, 0xff, 0x04][draw(6)], 1024 + draw(60_000) as u16),
    }
}

/// A TCP segment without payload to the service; its TCP checksum is not computed, because no router verifies it.
fn tcp(settings: &SpraySettings, own: [u8; 6], flags: u8, client_port: u16) -> Vec<u8> {
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 250), client_port);
    segment((own, settings.to), client, SocketAddrV4::new(settings.vipa, settings.port), flags)
}

/// A TCP segment without payload, `from` and `to` an Ethernet address; its TCP checksum is zero.
pub(super) fn segment((from, to): ([u8; 6], [u8; 6]), client: SocketAddrV4, vipa: SocketAddrV4, flags: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(client.ip().octets());
    frame.extend(vipa.ip().octets());
    let checksum = folded(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(client.port().to_be_bytes());
    frame.extend(vipa.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    frame
}

pub(super) fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// The Internet checksum (RFC 1071).
pub(super) fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}
