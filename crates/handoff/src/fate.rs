//! Fates of packets. Each packet has exactly one fate, and each fate is a counter.

mod decided;

use vipa_packet::Malformed;

/// The one fate of a packet. A packet that is held while a table is rebuilt has none yet; it gets one when it is
/// released or its time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Given to the port towards its connection's target, or, on its way back, towards the client.
    Forward,
    /// Given to the port's kernel interface.
    ToKernel,
    /// Received from the kernel, given to the port.
    FromKernel,
    /// Turned into an answer, and given to the port by which it arrived.
    Local(LocalReply),
    /// Its content was reported to control.
    Punt,
    Drop(Reason),
}

/// Kind of answer that a packet got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LocalReply {
    Arp,
    /// A neighbour advertisement, IPv6's answer to a neighbour solicitation.
    Neighbour,
    IcmpEcho,
    /// A reset, to a segment of a connection that is in no table or that no target serves.
    Reset,
    /// An ICMP error to the sender of a packet that is too big for the path to its target.
    TooBig,
    /// An ICMP error to the sender of a packet whose time to live ended here.
    TimeExceeded,
    /// "Port unreachable" to the sender of a datagram that no target serves.
    Unreachable,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Malformed(Malformed),
    /// To the Ethernet address of another station.
    NotForUs,
    /// IP to an Ethernet group address, which no connection's packet has.
    Group,
    /// ARP about other stations.
    ArpOfOthers,
    /// Neither ARP nor IP.
    EtherType,
    /// In another VLAN than the port, or in none although the port is in one.
    Vlan,
    /// To an address that is no VIPA of this router.
    NoVipa,
    /// A later fragment whose first fragment, which alone names the connection, did not arrive in time.
    Fragment,
    /// A first fragment that does not hold the ports, or a fragment that overlaps another.
    FragmentBad,
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
    /// The service's source lists do not admit this client.
    Denied,
    /// The VIPA's limit on new connections in this second is reached.
    VipaLimit,
    /// The client's limit on new connections in this second is reached.
    SourceLimit,
    /// Of a new connection, while more packets arrive than the worker can process.
    Overload,
    /// Too big for the path to its target, and the sender gets no ICMP error.
    TooBig,
    /// Its time to live ended here, and it may not be answered.
    TimeToLive,
    /// It would be answered, but the limit on answers is reached.
    AnswerLimit,
    /// No port leads to its destination.
    NoRoute,
    /// For the kernel, whose limit in this second is reached.
    KernelLimit,
    /// The target's Ethernet address is not known yet.
    NoNeighbour,
    /// A segment of a connection that is not in the table.
    Orphan,
    /// A SYN-ACK of a connection that no target has reported.
    SynAck,
    /// The lease has expired: nothing new is admitted.
    Fenced,
    /// Another router owns the VIPA.
    Standby,
    /// The connection table has no slot that may be taken.
    TableFull,
    /// No more packets can be held.
    HoldFull,
    /// Held until its time passed.
    HoldExpired,
    /// The port refused it.
    TxRefused,
}

impl LocalReply {
    pub const ALL: [Self; 7] =
        [Self::Arp, Self::Neighbour, Self::IcmpEcho, Self::Reset, Self::TooBig, Self::TimeExceeded, Self::Unreachable];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "replied.arp",
            Self::Neighbour => "replied.neighbour",
            Self::IcmpEcho => "replied.icmp-echo",
            Self::Reset => "replied.reset",
            Self::TooBig => "replied.too-big",
            Self::TimeExceeded => "replied.time-exceeded",
            Self::Unreachable => "replied.unreachable",
        }
    }
}

impl Reason {
    /// All reasons but the malformed ones.
    const OTHERS: [Self; 31] = [
        Self::NotForUs,
        Self::Group,
        Self::ArpOfOthers,
        Self::EtherType,
        Self::Vlan,
        Self::NoVipa,
        Self::Fragment,
        Self::FragmentBad,
        Self::IpProtocol,
        Self::Icmp,
        Self::IcmpOrphan,
        Self::NoService,
        Self::NoTarget,
        Self::Denied,
        Self::VipaLimit,
        Self::SourceLimit,
        Self::TooBig,
        Self::TimeToLive,
        Self::AnswerLimit,
        Self::NoRoute,
        Self::KernelLimit,
        Self::NoNeighbour,
        Self::Orphan,
        Self::Fenced,
        Self::Standby,
        Self::TableFull,
        Self::HoldFull,
        Self::HoldExpired,
        Self::TxRefused,
        Self::Overload,
        Self::SynAck,
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
            Self::FragmentBad => 7,
            Self::IpProtocol => 8,
            Self::Icmp => 9,
            Self::IcmpOrphan => 10,
            Self::NoService => 11,
            Self::NoTarget => 12,
            Self::Denied => 13,
            Self::VipaLimit => 14,
            Self::SourceLimit => 15,
            Self::TooBig => 16,
            Self::TimeToLive => 17,
            Self::AnswerLimit => 18,
            Self::NoRoute => 19,
            Self::KernelLimit => 20,
            Self::NoNeighbour => 21,
            Self::Orphan => 22,
            Self::Fenced => 23,
            Self::Standby => 24,
            Self::TableFull => 25,
            Self::HoldFull => 26,
            Self::HoldExpired => 27,
            Self::TxRefused => 28,
            Self::Overload => 29,
            Self::SynAck => 30,
        };
        Malformed::COUNT + other
    }

    pub fn all() -> impl Iterator<Item = Self> {
        Malformed::ALL.into_iter().map(Self::Malformed).chain(Self::OTHERS)
    }

    /// Name of the counter of packets dropped for this reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.counter(),
            Self::NotForUs => "dropped.not-for-us",
            Self::Group => "dropped.group",
            Self::ArpOfOthers => "dropped.arp-of-others",
            Self::EtherType => "dropped.ether-type",
            Self::Vlan => "dropped.vlan",
            Self::NoVipa => "dropped.no-vipa",
            Self::Fragment => "dropped.fragment",
            Self::FragmentBad => "dropped.fragment-bad",
            Self::IpProtocol => "dropped.ip-protocol",
            Self::Icmp => "dropped.icmp",
            Self::IcmpOrphan => "dropped.icmp-orphan",
            Self::NoService => "dropped.no-service",
            Self::NoTarget => "dropped.no-target",
            Self::Denied => "dropped.denied",
            Self::VipaLimit => "dropped.vipa-limit",
            Self::SourceLimit => "dropped.source-limit",
            Self::Overload => "dropped.overload",
            Self::TooBig => "dropped.too-big",
            Self::TimeToLive => "dropped.time-to-live",
            Self::AnswerLimit => "dropped.answer-limit",
            Self::NoRoute => "dropped.no-route",
            Self::KernelLimit => "dropped.kernel-limit",
            Self::NoNeighbour => "dropped.no-neighbour",
            Self::Orphan => "dropped.orphan",
            Self::SynAck => "dropped.syn-ack",
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
    pub const COUNT: usize = 4 + LocalReply::ALL.len() + Reason::COUNT;

    /// Dense, below [`COUNT`](Self::COUNT).
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Forward => 0,
            Self::Punt => 1,
            Self::ToKernel => 2,
            Self::FromKernel => 3,
            Self::Local(reply) => 4 + reply as usize,
            Self::Drop(reason) => 4 + LocalReply::ALL.len() + reason.index(),
        }
    }

    /// Every fate, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Forward, Self::Punt, Self::ToKernel, Self::FromKernel]
            .into_iter()
            .chain(LocalReply::ALL.map(Self::Local))
            .chain(Reason::all().map(Self::Drop))
    }

    /// Name of the fate's counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forwarded",
            Self::Punt => "punted",
            Self::ToKernel => "kernel.to",
            Self::FromKernel => "kernel.from",
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
