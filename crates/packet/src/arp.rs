//! ARP for IPv4 over Ethernet (RFC 826): who has an address, and saying that we do (RFC 5227).
//!
//! ```text
//!  0      2      4  5  6     8             14            18            24            28
//!  | htype| ptype|hl|pl| op  | sender MAC   | sender IP   | target MAC  | target IP   |
//! ```

use std::net::Ipv4Addr;

use crate::{
    Malformed,
    ethernet::{self, BROADCAST, HEADER, MacAddress, SHORTEST},
    view,
};

/// Bytes of an ARP message.
pub const LENGTH: usize = 28;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Request,
    Reply,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub operation: Operation,
    pub sender_mac: MacAddress,
    /// Unspecified (0.0.0.0) in a probe (RFC 5227 §2.1.1).
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

impl Arp {
    /// The neighbour this message introduces: `None` when the sender's address is not one a host can have, as in a probe.
    #[must_use]
    pub fn neighbour(&self) -> Option<(Ipv4Addr, MacAddress)> {
        let host = !crate::parse::is_martian(self.sender.to_bits());
        host.then_some((self.sender, self.sender_mac))
    }

    /// Whether the sender announces its own address (RFC 5227 §3).
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }
}

/// Reads the message at `at`.
pub(crate) fn read(frame: &[u8], at: usize) -> Result<Arp, Malformed> {
    let message: &[u8; LENGTH] = view::chunk(frame, at).ok_or(Malformed::Arp)?;
    let operation = match view::u16_at(message, 6) {
        Some(REQUEST) => Operation::Request,
        Some(REPLY) => Operation::Reply,
        _ => return Err(Malformed::Arp),
    };
    let [_, _, _, _, _, _, _, _, sender_mac @ .., s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = *message;
    if message[..6] != FIXED || !ethernet::is_station(&sender_mac) {
        return Err(Malformed::Arp);
    }
    let (sender, target) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(t0, t1, t2, t3));
    Ok(Arp { operation, sender_mac, sender, target })
}

fn message(operation: u16, sender: (MacAddress, Ipv4Addr), target: (MacAddress, Ipv4Addr)) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..6].copy_from_slice(&FIXED);
    message[6..8].copy_from_slice(&operation.to_be_bytes());
    message[8..14].copy_from_slice(&sender.0);
    message[14..18].copy_from_slice(&sender.1.octets());
    message[18..24].copy_from_slice(&target.0);
    message[24..].copy_from_slice(&target.1.octets());
    message
}

/// Turns the request in `frame`, at `l3`, into the reply that says the address it asks for is at `our_mac`.
/// False, and nothing changed, when there is no well-formed request at `l3`.
#[must_use]
pub fn reply(frame: &mut [u8], l3: u8, our_mac: &MacAddress) -> bool {
    let at = usize::from(l3);
    match read(frame, at) {
        Ok(Arp { operation: Operation::Request, sender_mac, sender, target }) => {
            ethernet::set_macs(frame, &sender_mac, our_mac);
            view::put(frame, at, &message(REPLY, (*our_mac, target), (sender_mac, sender)))
        }
        _ => false,
    }
}

/// Asks everybody on the link for the station that has `target`.
#[must_use]
pub fn request(our_mac: &MacAddress, our_address: Ipv4Addr, target: Ipv4Addr) -> [u8; SHORTEST] {
    broadcast(our_mac, &message(REQUEST, (*our_mac, our_address), ([0; 6], target)))
}

/// Announces that `address` is at `mac` from now on: an ARP announcement (RFC 5227 §3), that is a request, which more
/// stacks heed than an unasked-for reply, with sender and target address the same.
#[must_use]
pub fn gratuitous(mac: &MacAddress, address: Ipv4Addr) -> [u8; SHORTEST] {
    request(mac, address, address)
}

/// Asks who has `address`, which is `mac`'s own, and introduces nobody (RFC 5227 §2.1.1).
#[must_use]
pub fn probe(mac: &MacAddress, address: Ipv4Addr) -> [u8; SHORTEST] {
    request(mac, Ipv4Addr::UNSPECIFIED, address)
}

fn broadcast(source: &MacAddress, message: &[u8; LENGTH]) -> [u8; SHORTEST] {
    let mut frame = [0; SHORTEST];
    ethernet::set_macs(&mut frame, &BROADCAST, source);
    frame[12..HEADER].copy_from_slice(&ethernet::TYPE_ARP.to_be_bytes());
    frame[HEADER..HEADER + LENGTH].copy_from_slice(message);
    frame
}

/// The message alone, for [`crate::build`].
pub(crate) fn write(
    operation: Operation,
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
) -> [u8; LENGTH] {
    let code = match operation {
        Operation::Request => REQUEST,
        Operation::Reply => REPLY,
    };
    message(code, sender, target)
}

#[cfg(test)]
mod tests;
