//! Neighbour discovery for IPv6 (RFC 4861): who has an address, and saying that we do.
//!
//! ```text
//!  0     1     2        4            8              24             32
//!  | type| code| sum    | R S O, 0   | target       | option: MAC  |
//! ```

use std::net::Ipv6Addr;

use crate::{
    ICMP6, Malformed, PacketBuf, Parsed,
    ethernet::{self, HEADER as ETHERNET, MacAddress, TYPE_IPV6},
    icmp6::{Icmp6, Ipv6Icmp, sum_of},
    parse::Body,
    view,
};

pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;

/// Bytes of a message with its one option.
const MESSAGE: usize = 32;
const IPV6_HEADER: usize = 40;
/// Bytes of a whole frame that this module writes.
pub const FRAME: usize = ETHERNET + IPV6_HEADER + MESSAGE;

/// The same without an option.
const PROBE: usize = 24;
pub const PROBE_FRAME: usize = ETHERNET + IPV6_HEADER + PROBE;

/// Such messages are never forwarded: who sees less than this sees a forgery (§7.1).
const HOP_LIMIT: u8 = 255;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: u128 = 0xff02 << 112 | 1;
const SOLICITED_NODE: u128 = 0xff02 << 112 | 0x1_ff00_0000;

/// Who has `target`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    pub target: u128,
    /// The asker's.
    pub source_mac: Option<MacAddress>,
}

/// `target` is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub target: u128,
    pub mac: Option<MacAddress>,
    /// An answer to a question.
    pub solicited: bool,
    /// To be believed instead of what was known.
    pub overrides: bool,
}

/// Reads a message and verifies all that §7.1 demands.
pub(crate) fn read(message: &[u8], source: u128, destination: u128, hop_limit: u8) -> Result<Icmp6, Malformed> {
    if hop_limit != HOP_LIMIT {
        return Err(Malformed::NdHopLimit);
    }
    let length = u16::try_from(message.len()).map_err(|_| Malformed::NdMessage)?;
    if sum_of(source, destination, length).bytes(message).fold() != 0xffff {
        return Err(Malformed::NdChecksum);
    }
    let target = view::u128_at(message, 8).ok_or(Malformed::NdMessage)?;
    let to_group = destination >> 120 == 0xff;
    if message[1] != 0 || target >> 120 == 0xff {
        return Err(Malformed::NdMessage);
    }
    if message[0] == SOLICITATION {
        let source_mac = mac_option(&message[24..], SOURCE_MAC)?;
        let nameless = source == 0;
        if nameless && (source_mac.is_some() || destination >> 24 != SOLICITED_NODE >> 24) {
            return Err(Malformed::NdMessage);
        }
        return Ok(Icmp6::Solicitation(Solicitation { target, source_mac }));
    }
    let flags = message[4];
    let (solicited, overrides) = (flags & SOLICITED != 0, flags & OVERRIDE != 0);
    if solicited && to_group {
        return Err(Malformed::NdMessage);
    }
    let mac = mac_option(&message[24..], TARGET_MAC)?;
    Ok(Icmp6::Advertisement(Advertisement { target, mac, solicited, overrides }))
}

/// The station in the first option of this kind. Options are in units of 8 bytes, none of them empty (§4.6).
fn mac_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddress>, Malformed> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return Err(Malformed::NdMessage);
        }
        if kind == wanted
            && let Some(mac) = view::chunk::<6>(options, 2)
        {
            if length != 8 || !ethernet::is_station(mac) {
                return Err(Malformed::NdMessage);
            }
            found = found.or(Some(*mac));
        }
        options = &options[length..];
    }
    if options.is_empty() { Ok(found) } else { Err(Malformed::NdMessage) }
}

/// Turns the solicitation that `parsed` found into the advertisement that says the address it asks for is at `our_mac`.
/// Who asked without an address of his own is answered by word to all (§7.2.4).
///
/// False, and nothing changed, when it is none, or without headroom for what it lacks.
#[must_use]
pub fn advertise(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Body::Ipv6Icmp(Ipv6Icmp { source, message: Icmp6::Solicitation(Solicitation { target, .. }), .. }) =
        parsed.body
    else {
        return false;
    };
    let l3 = usize::from(parsed.l3);
    let mut link = [0; ETHERNET + ethernet::VLAN_TAG];
    let Some(link) = link.get_mut(..l3) else { return false };
    link.copy_from_slice(&packet.bytes()[..l3]);
    let asker: MacAddress = *view::chunk(link, 6).unwrap_or(&[0; 6]);
    let (to_mac, to, flags) = match source {
        0 => (group_mac(ALL_NODES), ALL_NODES, OVERRIDE),
        asked => (asker, asked, SOLICITED | OVERRIDE),
    };
    let wanted = l3 + IPV6_HEADER + MESSAGE;
    let lacking = wanted.saturating_sub(packet.bytes().len());
    if packet.headroom() < lacking || packet.prepend(lacking).is_none() || !packet.truncate(wanted) {
        return false;
    }
    let frame = packet.bytes_mut();
    frame[..l3].copy_from_slice(link);
    ethernet::set_macs(frame, &to_mac, our_mac);
    frame[l3..].copy_from_slice(&message(ADVERTISEMENT, flags, (target, to), target, (TARGET_MAC, our_mac)));
    true
}

/// Asks the stations that may have `target` for it.
#[must_use]
pub fn solicitation(our_mac: &MacAddress, our_address: Ipv6Addr, target: Ipv6Addr) -> [u8; FRAME] {
    let target = target.to_bits();
    let group = SOLICITED_NODE | target & 0xff_ffff;
    frame(our_mac, &message(SOLICITATION, 0, (our_address.to_bits(), group), target, (SOURCE_MAC, our_mac)), group)
}

/// Announces that `address` is at `mac` from now on (§7.2.6).
#[must_use]
pub fn unsolicited(mac: &MacAddress, address: Ipv6Addr) -> [u8; FRAME] {
    let address = address.to_bits();
    frame(mac, &message(ADVERTISEMENT, OVERRIDE, (address, ALL_NODES), address, (TARGET_MAC, mac)), ALL_NODES)
}

/// Asks who has `address`, which is `mac`'s own, and introduces nobody (RFC 4862 §5.4.2).
#[must_use]
pub fn probe(mac: &MacAddress, address: Ipv6Addr) -> [u8; PROBE_FRAME] {
    let address = address.to_bits();
    let group = SOLICITED_NODE | address & 0xff_ffff;
    let mut frame = [0; PROBE_FRAME];
    put_link(&mut frame, mac, &group_mac(group));
    let (header, message) = frame[ETHERNET..].split_at_mut(IPV6_HEADER);
    put_ip(header, PROBE as u16, (0, group));
    message[0] = SOLICITATION;
    message[8..24].copy_from_slice(&address.to_be_bytes());
    put_sum(message, (0, group));
    frame
}

/// Where the frames of an IPv6 group go (RFC 2464 §7).
#[must_use]
pub const fn group_mac(group: u128) -> MacAddress {
    let [.., a, b, c, d] = group.to_be_bytes();
    [0x33, 0x33, a, b, c, d]
}

/// The group that the stations with an address like `target` listen to, as a station's address (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node_mac(target: u128) -> MacAddress {
    group_mac(SOLICITED_NODE | target & 0xff_ffff)
}

fn frame(source: &MacAddress, packet: &[u8; IPV6_HEADER + MESSAGE], group: u128) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    put_link(&mut frame, source, &group_mac(group));
    frame[ETHERNET..].copy_from_slice(packet);
    frame
}

fn message(
    kind: u8,
    flags: u8,
    ends: (u128, u128),
    target: u128,
    (option, mac): (u8, &MacAddress),
) -> [u8; IPV6_HEADER + MESSAGE] {
    let mut packet = [0; IPV6_HEADER + MESSAGE];
    let (header, message) = packet.split_at_mut(IPV6_HEADER);
    put_ip(header, MESSAGE as u16, ends);
    (message[0], message[4]) = (kind, flags);
    message[8..24].copy_from_slice(&target.to_be_bytes());
    (message[24], message[25]) = (option, 1);
    message[26..32].copy_from_slice(mac);
    put_sum(message, ends);
    packet
}

fn put_link(frame: &mut [u8], source: &MacAddress, destination: &MacAddress) {
    ethernet::set_macs(frame, destination, source);
    frame[12..ETHERNET].copy_from_slice(&TYPE_IPV6.to_be_bytes());
}

fn put_ip(header: &mut [u8], length: u16, (source, destination): (u128, u128)) {
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    (header[6], header[7]) = (ICMP6, HOP_LIMIT);
    header[8..24].copy_from_slice(&source.to_be_bytes());
    header[24..40].copy_from_slice(&destination.to_be_bytes());
}

fn put_sum(message: &mut [u8], (source, destination): (u128, u128)) {
    let sum = sum_of(source, destination, message.len() as u16).bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
