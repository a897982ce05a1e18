//! What a worker needs to know of a way on which nothing is left to be asked, prepared for each snapshot.

use std::net::IpAddr;

use vipa_model::PortId;
use vipa_packet::{EthernetHeader, TunnelHeaders, ethernet};

use super::{ForwardingAction, NextHop, TargetRoute};

/// A way by which frames go as they are, but for their addresses: the neighbour is known, and the port's frames have no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Rewrite {
    /// Destination and source, as a frame begins.
    pub macs: [u8; 12],
    /// Bytes of the longest frame; none is as short as 0, where the way is another.
    longest: u16,
    pub port: PortId,
}

/// A way on which packets become others: the neighbour is known, and translated ones leave without a tag.
#[derive(Debug)]
pub struct Rewrite {
    pub port: PortId,
    /// Largest packet that fits, bytes of IP.
    pub mtu: u16,
    pub how: RewriteAction,
}

#[derive(Debug)]
pub enum RewriteAction {
    Wrap(TunnelHeaders),
    Translate {
        address: IpAddr,
        /// `None`: the one that it has.
        port: Option<u16>,
        /// Destination and source, as a frame begins.
        macs: [u8; 12],
    },
}

impl L2Rewrite {
    /// No frame goes that way.
    pub(super) const NONE: Self = Self { macs: [0; 12], longest: 0, port: PortId(0) };

    pub(super) fn new(hop: &NextHop, mtu: u16) -> Self {
        let NextHop { port, link } = hop;
        if link.vlan.is_some() {
            return Self::NONE;
        }
        Self { macs: macs(link), longest: mtu.saturating_add(ethernet::HEADER as u16), port: *port }
    }

    #[inline(always)]
    pub(super) fn takes(&self, length: usize) -> bool {
        length <= usize::from(self.longest)
    }
}

impl TargetRoute {
    pub(super) fn l2_rewrite(&self) -> L2Rewrite {
        match &self.next_hop {
            Some(hop) if self.via == ForwardingAction::Direct => L2Rewrite::new(hop, self.mtu),
            _ => L2Rewrite::NONE,
        }
    }

    pub(super) fn rewrite(&self) -> Option<Rewrite> {
        let NextHop { port, link } = self.next_hop.as_ref()?;
        let how = match &self.via {
            ForwardingAction::Tunnel { outer, how } => RewriteAction::Wrap(TunnelHeaders::new(outer, *how, link)),
            ForwardingAction::Nat { port } if link.vlan.is_none() => {
                RewriteAction::Translate { address: self.address, port: *port, macs: macs(link) }
            }
            ForwardingAction::Nat { .. } | ForwardingAction::Direct | ForwardingAction::Local => return None,
        };
        Some(Rewrite { port: *port, mtu: self.mtu, how })
    }
}

fn macs(link: &EthernetHeader) -> [u8; 12] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&link.destination);
    macs[6..].copy_from_slice(&link.source);
    macs
}
