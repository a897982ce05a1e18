//! What becomes of a packet. Each has exactly one fate, and each fate is a counter.

use vipa_packet::Malformed;

/// The one thing that became of a packet. A packet held while a table is rebuilt has none yet; it gets one when it is
/// released or its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Given to the port towards its connection's target.
    Forward,
    /// Turned into an answer, and given to the port it came from.
    Local(LocalReply),
    /// What it says was told to control.
    Punt,
    Drop(Reason),
}

/// What a packet was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LocalReply {
    Arp,
    IcmpEcho,
    /// A reset, to a segment of a connection that nobody knows.
    Reset,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Malformed(Malformed),
    /// The Ethernet address of another station.
    NotForUs,
    /// IP sent to an Ethernet group address, which no connection's packet is.
    Group,
    /// ARP about others.
    ArpOfOthers,
    /// Neither ARP nor IPv4.
    EtherType,
    /// In a VLAN, and the port is not.
    Vlan,
    /// To an IPv4 address that is no VIPA of ours.
    NoVipa,
    /// A part of an IPv4 packet: only the first part names a connection.
    Fragment,
    /// To a VIPA, and neither TCP, UDP nor ICMP.
    IpProtocol,
    /// ICMP to a VIPA that is neither an echo request nor about a connection.
    Icmp,
    /// ICMP about a connection that is not in the table.
    IcmpOrphan,
    /// No service of the VIPA has this port.
    NoService,
    /// The service has no target that listens.
    NoTarget,
    /// The target's Ethernet address is not known yet.
    NoNeighbour,
    /// A segment of a connection that nobody knows.
    Orphan,
    /// The lease has passed: nothing new is admitted.
    Fenced,
    /// Another router owns the VIPA.
    Standby,
    /// The connection table has no place that may be taken.
    TableFull,
    /// No more packets can be held.
    HoldFull,
    /// Held until its time was up.
    HoldExpired,
    /// The port did not take it.
    TxRefused,
}

impl LocalReply {
    pub const ALL: [Self; 3] = [Self::Arp, Self::IcmpEcho, Self::Reset];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "replied.arp",
            Self::IcmpEcho => "replied.icmp-echo",
            Self::Reset => "replied.reset",
        }
    }
}

impl Reason {
    /// All but the malformed ones.
    const OTHERS: [Self; 20] = [
        Self::NotForUs,
        Self::Group,
        Self::ArpOfOthers,
        Self::EtherType,
        Self::Vlan,
        Self::NoVipa,
        Self::Fragment,
        Self::IpProtocol,
        Self::Icmp,
        Self::IcmpOrphan,
        Self::NoService,
        Self::NoTarget,
        Self::NoNeighbour,
        Self::Orphan,
        Self::Fenced,
        Self::Standby,
        Self::TableFull,
        Self::HoldFull,
        Self::HoldExpired,
        Self::TxRefused,
    ];
    pub const COUNT: usize = Malformed::COUNT + Self::OTHERS.len();

    /// Dense, below [`COUNT`](Self::COUNT): the malformed ones first.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        let other = match self {
            Self::Malformed(malformed) => return malformed.index(),
            Self::NotForUs => 0,
            Self::Group => 1,
            Self::ArpOfOthers => 2,
            Self::EtherType => 3,
            Self::Vlan => 4,
            Self::NoVipa => 5,
            Self::Fragment => 6,
            Self::IpProtocol => 7,
            Self::Icmp => 8,
            Self::IcmpOrphan => 9,
            Self::NoService => 10,
            Self::NoTarget => 11,
            Self::NoNeighbour => 12,
            Self::Orphan => 13,
            Self::Fenced => 14,
            Self::Standby => 15,
            Self::TableFull => 16,
            Self::HoldFull => 17,
            Self::HoldExpired => 18,
            Self::TxRefused => 19,
        };
        Malformed::COUNT + other
    }

    pub fn all() -> impl Iterator<Item = Self> {
        Malformed::ALL.into_iter().map(Self::Malformed).chain(Self::OTHERS)
    }

    /// Name of the counter of packets dropped for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => match malformed {
                Malformed::TooShort => "dropped.too-short",
                Malformed::Ipv4Version => "dropped.ipv4-version",
                Malformed::Ipv4HeaderLength => "dropped.ipv4-header-length",
                Malformed::Ipv4TotalLength => "dropped.ipv4-total-length",
                Malformed::Ipv4Checksum => "dropped.ipv4-checksum",
                Malformed::Ipv4Source => "dropped.ipv4-source",
                Malformed::TcpHeader => "dropped.tcp-header",
                Malformed::UdpLength => "dropped.udp-length",
                Malformed::IcmpTooShort => "dropped.icmp-too-short",
                Malformed::IcmpQuote => "dropped.icmp-quote",
                Malformed::Arp => "dropped.arp-malformed",
            },
            Self::NotForUs => "dropped.not-for-us",
            Self::Group => "dropped.group",
            Self::ArpOfOthers => "dropped.arp-of-others",
            Self::EtherType => "dropped.ether-type",
            Self::Vlan => "dropped.vlan",
            Self::NoVipa => "dropped.no-vipa",
            Self::Fragment => "dropped.fragment",
            Self::IpProtocol => "dropped.ip-protocol",
            Self::Icmp => "dropped.icmp",
            Self::IcmpOrphan => "dropped.icmp-orphan",
            Self::NoService => "dropped.no-service",
            Self::NoTarget => "dropped.no-target",
            Self::NoNeighbour => "dropped.no-neighbour",
            Self::Orphan => "dropped.orphan",
            Self::Fenced => "dropped.fenced",
            Self::Standby => "dropped.standby",
            Self::TableFull => "dropped.table-full",
            Self::HoldFull => "dropped.hold-full",
            Self::HoldExpired => "dropped.hold-expired",
            Self::TxRefused => "dropped.tx-refused",
        }
    }
}

impl Fate {
    pub const COUNT: usize = 2 + LocalReply::ALL.len() + Reason::COUNT;

    /// Dense, below [`COUNT`](Self::COUNT).
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Forward => 0,
            Self::Punt => 1,
            Self::Local(reply) => 2 + reply as usize,
            Self::Drop(reason) => 2 + LocalReply::ALL.len() + reason.index(),
        }
    }

    /// Every fate, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Forward, Self::Punt]
            .into_iter()
            .chain(LocalReply::ALL.map(Self::Local))
            .chain(Reason::all().map(Self::Drop))
    }

    /// Name of its counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forwarded",
            Self::Punt => "punted",
            Self::Local(reply) => reply.name(),
            Self::Drop(reason) => reason.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fate_has_a_place_and_a_name_of_its_own() {
        let places: Vec<_> = Fate::all().map(Fate::index).collect();
        assert_eq!(places, (0..Fate::COUNT).collect::<Vec<_>>());
        assert_eq!(Fate::all().map(Fate::name).collect::<HashSet<_>>().len(), Fate::COUNT);
    }

    #[test]
    fn the_counter_of_a_malformed_packet_is_named_as_the_parser_names_it() {
        for malformed in Malformed::ALL {
            assert_eq!(Reason::Malformed(malformed).name(), format!("dropped.{}", malformed.name()));
        }
    }
}
