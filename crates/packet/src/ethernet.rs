//! The Ethernet header: whose frame it is, and where it goes next.

use crate::{PacketBuf, view};

/// An Ethernet address. The same six bytes as `vipa_model::Mac`; this room knows no nouns.
pub type MacAddress = [u8; 6];

pub const BROADCAST: MacAddress = [0xff; 6];

/// Bytes of an Ethernet header without a VLAN tag.
pub const HEADER: usize = 14;
/// Bytes of an 802.1Q tag.
pub const VLAN_TAG: usize = 4;
/// Shortest frame on a wire, without its check sequence; what is shorter is padded with zeros.
pub const SHORTEST: usize = 60;

pub const TYPE_IPV4: u16 = 0x0800;
pub const TYPE_ARP: u16 = 0x0806;
pub const TYPE_VLAN: u16 = 0x8100;
pub const TYPE_IPV6: u16 = 0x86dd;

/// The Ethernet header of a frame that is sent: addresses and VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    pub source: MacAddress,
    pub destination: MacAddress,
    pub vlan: Option<u16>,
}

impl EthernetHeader {
    /// Bytes of this header.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> usize {
        HEADER + if self.vlan.is_some() { VLAN_TAG } else { 0 }
    }

    /// Writes the header to `place`, which has its length.
    #[inline(always)]
    pub(crate) fn write(&self, place: &mut [u8], ether_type: u16) {
        set_macs(place, &self.destination, &self.source);
        if let (Some(vlan), Some(tag)) = (self.vlan, place.get_mut(12..16)) {
            tag[..2].copy_from_slice(&TYPE_VLAN.to_be_bytes());
            tag[2..].copy_from_slice(&vlan.to_be_bytes());
        }
        if let Some(last) = place.last_chunk_mut::<2>() {
            *last = ether_type.to_be_bytes();
        }
    }
}

/// Whom a frame is addressed to, seen from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Destination {
    /// The port's own address.
    Ours,
    /// Broadcast or multicast. A group frame may be an ARP request, but never carries a connection's packet (RFC 1122 §3.2.1.3,
    /// §4.2.3.10).
    Group,
    /// Another station's address: the port is promiscuous, or the switch floods.
    Foreign,
}

/// A destination address as a word, for comparison with the first word of many frames.
#[derive(Clone, Copy)]
pub struct Station(u64);

impl Station {
    /// The address of no frame.
    pub const NOBODY: Self = Self(u64::MAX);

    #[inline]
    #[must_use]
    pub const fn new(mac: &MacAddress) -> Self {
        let [a, b, c, d, e, f] = *mac;
        Self(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Zero if a frame that begins with this little-endian word is addressed to this station.
    #[inline(always)]
    pub(crate) const fn differs(self, word: u64) -> u64 {
        (word ^ self.0.to_le()) << 16 | self.0.to_le() >> 48
    }
}

/// The MAC filter. A frame too short to have an address is foreign.
#[inline(always)]
#[must_use]
pub fn l2_destination(frame: &[u8], our_mac: &MacAddress) -> L2Destination {
    match frame.first_chunk::<6>() {
        Some(destination) if destination == our_mac => L2Destination::Ours,
        Some(destination) if destination[0] & 1 != 0 => L2Destination::Group,
        _ => L2Destination::Foreign,
    }
}

/// Whether one station can have this address: not a group's, not zero.
#[inline]
#[must_use]
pub fn is_station(mac: &MacAddress) -> bool {
    mac[0] & 1 == 0 && *mac != [0; 6]
}

/// The station that sent the frame; `None` where it is no station's address, or the frame is cut short.
#[must_use]
pub fn source(frame: &[u8]) -> Option<MacAddress> {
    view::chunk(frame, 6).copied().filter(is_station)
}

/// Writes both addresses, in the order they have in a frame. A frame too short for them is left alone.
#[inline(always)]
pub fn set_macs(frame: &mut [u8], destination: &MacAddress, source: &MacAddress) {
    if let Some(place) = frame.first_chunk_mut::<12>() {
        place[..6].copy_from_slice(destination);
        place[6..].copy_from_slice(source);
    }
}

/// Writes both addresses, side by side as a frame begins, into a frame without a tag. One too short for them is left alone.
#[inline(always)]
pub fn rewrite_macs(frame: &mut [u8], macs: &[u8; 12]) {
    if let Some(place) = frame.first_chunk_mut() {
        *place = *macs;
    }
}

/// Whether a frame has a tag, if it has an EtherType at all.
#[inline(always)]
#[must_use]
pub fn is_untagged(frame: &[u8]) -> bool {
    frame.first_chunk::<HEADER>().is_some_and(|head| head[12..] != TYPE_VLAN.to_be_bytes())
}

/// Whether a frame is tagged, and the EtherType of what it carries.
#[must_use]
pub fn ether_type(frame: &[u8]) -> Option<(bool, u16)> {
    match view::u16_at(frame, HEADER - 2)? {
        TYPE_VLAN => Some((true, view::u16_at(frame, HEADER + 2)?)),
        ether_type => Some((false, ether_type)),
    }
}

/// The priority and drop eligibility of a frame's tag (IEEE 802.1Q §9.6), where a tag has them; 0 without a tag.
#[inline]
pub(crate) fn priority(frame: &[u8]) -> u8 {
    if is_untagged(frame) { 0 } else { frame.get(HEADER).map_or(0, |control| control & 0xf0) }
}

/// Gives a frame this priority, if it has a tag, which had none.
#[inline]
pub(crate) fn set_priority(frame: &mut [u8], priority: u8) {
    if priority != 0
        && !is_untagged(frame)
        && let Some(control) = frame.get_mut(HEADER)
    {
        *control |= priority;
    }
}

/// Replaces the Ethernet header, all bytes before `l3`, by another one. The priority of an old tag is kept in the new tag. False, and
/// nothing changed, without headroom.
#[inline]
#[must_use]
pub fn replace_ethernet_header(packet: &mut impl PacketBuf, l3: usize, ether_type: u16, link: &EthernetHeader) -> bool {
    let (length, priority) = (link.length(), priority(packet.bytes()));
    if packet.headroom() + l3 < length || !packet.trim_front(l3) {
        return false;
    }
    match packet.prepend(length) {
        Some(place) => {
            link.write(place, ether_type);
            set_priority(place, priority);
            true
        }
        None => false,
    }
}

/// The frame with this tag, for frames composed without one.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12.min(frame.len()));
    [addresses, &TYPE_VLAN.to_be_bytes(), &vlan.to_be_bytes(), rest].concat()
}

/// Sends a frame back to the station it came from, as from `our_mac`.
#[inline]
pub(crate) fn return_to_sender(frame: &mut [u8], our_mac: &MacAddress) {
    if let Some(sender) = view::chunk::<6>(frame, 6).copied() {
        set_macs(frame, &sender, our_mac);
    }
}

#[cfg(test)]
mod tests;
