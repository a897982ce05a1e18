//! Announcements of addresses: the gratuitous ARP frames that reach a host, and when each was first seen.

use std::{collections::BTreeSet, io::Write, net::Ipv4Addr, os::fd::AsRawFd};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use super::clock;

/// Ethernet header and ARP payload of IPv4 (RFC 826), bytes.
const LENGTH: usize = 42;

/// The first line that [`announcements`] writes: its socket is open.
pub const LISTENING: &str = "listening for announcements";

/// The first announcement of an address by an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// See [`clock`].
    pub at: u64,
    pub address: Ipv4Addr,
    pub mac: [u8; 6],
}

/// Writes a line for each first announcement to standard output, until it is killed.
///
/// # Errors
/// When this process may not open a packet socket.
pub fn announcements() -> Result<()> {
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll);
    let raw = raw.context("no packet socket")?;
    let (mut seen, mut frame, mut out) = (BTreeSet::new(), [0; 2048], std::io::stdout().lock());
    writeln!(out, "{LISTENING}")?;
    out.flush()?;
    loop {
        let length = recv(raw.as_raw_fd(), &mut frame, MsgFlags::empty())?;
        let Some((address, mac)) = gratuitous(&frame[..length]) else { continue };
        if seen.insert((address, mac)) {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            writeln!(out, "announced {} {address} {mac}", clock())?;
            out.flush()?;
        }
    }
}

/// The announcements in the output of [`announcements`].
#[must_use]
pub fn read_announcements(text: &str) -> Vec<Announcement> {
    let line = |line: &str| {
        let mut words = line.strip_prefix("announced ")?.split(' ');
        let (at, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let bytes: Vec<u8> = words.next()?.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        Some(Announcement { at, address, mac: bytes.try_into().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// An ARP frame whose sender and target are the same address (RFC 5227 §1.1).
fn gratuitous(frame: &[u8]) -> Option<(Ipv4Addr, [u8; 6])> {
    if frame.len() < LENGTH || frame[12..14] != [0x08, 0x06] {
        return None;
    }
    let (sender, target): ([u8; 4], [u8; 4]) = (frame[28..32].try_into().ok()?, frame[38..42].try_into().ok()?);
    (sender == target).then(|| Some((sender.into(), frame[22..28].try_into().ok()?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_frame_is_told_from_a_question() {
        let mut frame = [0; LENGTH];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[28..32].copy_from_slice(&[10, 78, 0, 1]);
        assert_eq!(gratuitous(&frame), None);
        frame[38..42].copy_from_slice(&[10, 78, 0, 1]);
        assert_eq!(gratuitous(&frame), Some((Ipv4Addr::new(10, 78, 0, 1), [2, 0, 0, 0, 0, 1])));
        assert_eq!(gratuitous(&frame[..LENGTH - 1]), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "noise\nannounced 17 10.78.0.1 02:00:00:00:00:0a\n";
        let expected = Announcement { at: 17, address: Ipv4Addr::new(10, 78, 0, 1), mac: [2, 0, 0, 0, 0, 10] };
        assert_eq!(read_announcements(text), [expected]);
    }
}
