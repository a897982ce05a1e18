//! Rewrites for workers: paths on which everything is resolved, prepared for each snapshot.

use std::net::IpAddr;

use vipa_model::PortId;
use vipa_packet::{EthernetHeader, TunnelHeaders, ethernet};

use super::{ForwardingAction, NextHop, TargetRoute};

/// A path on which frames leave unchanged except for their MACs: the neighbour is resolved, and the port's frames have
/// no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Rewrite {
    /// Destination and source MAC, as at the beginning of a frame.
    pub macs: [u8; 12],
    /// Bytes of the longest frame; 0, which no frame fits, where the path needs more than this.
    longest: u16,
    pub port: PortId,
}

/// A path on which packets are encapsulated or translated: the neighbour is resolved, and translated ones leave without
/// a tag.
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
        /// `None`: the packet keeps its port.
        port: Option<u16>,
        /// Destination and source MAC, as at the beginning of a frame.
        macs: [u8; 12],
    },
}

impl L2Rewrite {
    /// No frame fits this path.
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
