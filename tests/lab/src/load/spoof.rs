//! Segments in the names of clients that did not send them: right addresses and ports, wrong sequence numbers.

use std::net::SocketAddrV4;

use anyhow::Result;
use clap::ValueEnum;

use super::spray::{Wire, fill_checksums, segment};

/// The flags of a spoofed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flags {
    Fin,
    Rst,
    Syn,
    FinRst,
}

impl Flags {
    /// As in the header (RFC 9293, 3.1); a FIN acknowledges, as all segments of an open connection do.
    fn bits(self) -> u8 {
        match self {
            Self::Fin => 0x11,
            Self::Rst => 0x04,
            Self::Syn => 0x02,
            Self::FinRst => 0x15,
        }
    }
}

#[derive(Clone, Debug)]
pub struct SpoofSettings {
    pub interface: String,
    /// The port's Ethernet address.
    pub to: [u8; 6],
    pub vipa: SocketAddrV4,
    pub clients: Vec<SocketAddrV4>,
    /// One segment of each for every client, in this order.
    pub flags: Vec<Flags>,
}

/// Sends the segments. Their sequence number is 1, which is in a connection's window only by chance.
pub fn spoof(settings: &SpoofSettings) -> Result<()> {
    let SpoofSettings { interface, to, vipa, clients, flags } = settings;
    let wire = Wire::open(interface)?;
    for client in clients {
        for flags in flags {
            let mut frame = segment((wire.own, *to), *client, *vipa, flags.bits());
            fill_checksums(&mut frame);
            wire.send(&frame)?;
        }
    }
    Ok(())
}
