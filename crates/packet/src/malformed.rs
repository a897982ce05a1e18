//! Why a frame is nothing.

/// Declares [`Malformed`] and everything that lists it, from one list.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// Why a frame is nothing. Each is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[$doc])* $variant,)*
        }

        impl Malformed {
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];
            pub const COUNT: usize = Self::ALL.len();

            /// Place in [`ALL`](Self::ALL).
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Name of the counter of packets dropped for it.
            #[must_use]
            pub const fn counter(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("dropped.", $name),)*
                }
            }
        }
    };
}

reasons! {
    /// Ends within its Ethernet header, VLAN tag, first 20 bytes of IPv4 or 40 bytes of IPv6.
    TooShort "too-short",
    Ipv4Version "ipv4-version",
    /// Header length below 20 bytes, or past the packet's end.
    Ipv4HeaderLength "ipv4-header-length",
    /// Total length below the header's, or past the frame's end.
    Ipv4TotalLength "ipv4-total-length",
    Ipv4Checksum "ipv4-checksum",
    /// Comes from an address no host can have: 0/8, 127/8, multicast, 255/8 (RFC 1122 §3.2.1.3). Answering it would be
    /// answering somebody else, or everybody.
    Ipv4Source "ipv4-source",
    /// A part that ends past the longest packet, or is not the last and no multiple of 8 bytes (RFC 791 §3.2).
    Ipv4Fragment "ipv4-fragment",
    Ipv6Version "ipv6-version",
    /// Payload length past the frame's end.
    Ipv6PayloadLength "ipv6-payload-length",
    /// Comes from a multicast, the loopback, an IPv4-mapped, or—but in neighbour and listener discovery—the unspecified
    /// address (RFC 4291 §2.5, §2.7).
    Ipv6Source "ipv6-source",
    /// An extension header past the packet's end.
    Ipv6ExtensionHeader "ipv6-extension-header",
    /// Hop-by-hop options that do not come first (RFC 8200 §4.1).
    Ipv6HopByHop "ipv6-hop-by-hop",
    /// A source route that is not at its end, of either family: no address of ours is a way station (RFC 7126 §4.3,
    /// RFC 8200 §4.4, RFC 5095).
    SourceRoute "source-route",
    /// More extension headers than anybody needs.
    Ipv6TooManyHeaders "ipv6-too-many-headers",
    /// A part that ends past the longest packet, is not the last and no multiple of 8 bytes, or is in parts itself
    /// (RFC 8200 §4.5).
    Ipv6Fragment "ipv6-fragment",
    /// Fewer than 20 bytes, or a data offset below that or past the packet's end.
    TcpHeader "tcp-header",
    /// Fewer than 8 bytes, or a length below that or past the packet's end.
    UdpLength "udp-length",
    IcmpTooShort "icmp-too-short",
    /// An error message whose quote is cut before the quoted packet's ports.
    IcmpQuote "icmp-quote",
    Icmp6TooShort "icmp6-too-short",
    /// [`IcmpQuote`](Self::IcmpQuote), of an IPv6 packet.
    Icmp6Quote "icmp6-quote",
    /// Neighbour discovery that crossed a router: its hop limit is not 255 (RFC 4861 §7.1).
    NdHopLimit "nd-hop-limit",
    NdChecksum "nd-checksum",
    /// Neighbour discovery that is cut short, in parts (RFC 6980), about a group, with an empty option, or unfit for its
    /// source or destination (RFC 4861 §7.1).
    NdMessage "nd-malformed",
    /// Cut short, not for IPv4 over Ethernet, an unknown operation, or sent by a group address.
    Arp "arp-malformed",
}
