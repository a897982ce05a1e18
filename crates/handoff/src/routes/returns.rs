//! Return paths of `nat`: which VIPA's answer comes from a target's own address and port.

use vipa_model::{PortRange, Protocol, TargetId, VipaId};

/// Packets of this protocol from these ports of a target may be a VIPA's answers; the connection table decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReturnRoute {
    pub protocol: Protocol,
    /// At the target.
    pub ports: PortRange,
    pub vipa: VipaId,
    /// The port on the VIPA; `None`: the same as at the target.
    pub vipa_port: Option<u16>,
    /// The path to the target.
    pub target: TargetId,
}

impl ReturnRoute {
    /// The VIPA's port of a packet from `port` of the target; `None`: the packet is not of this route.
    #[inline]
    #[must_use]
    pub fn port_on_vipa(&self, protocol: Protocol, port: u16) -> Option<u16> {
        let ours = self.protocol == protocol && self.ports.contains(port);
        ours.then(|| self.vipa_port.unwrap_or(port))
    }
}
