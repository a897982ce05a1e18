//! The world as the workers see it: immutable, replaced whole.

use std::{fmt, net::Ipv4Addr, sync::Arc};

use vipa_balance::{ClusterKey, Picker};
use vipa_model::{Forwarding, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, VipaId};
use vipa_sync::Deadline;

/// One snapshot for a burst. `PortId`, `VipaId` and `TargetId` are places in its lists.
#[derive(Debug)]
pub struct Routes {
    /// Counts the snapshots of this process.
    pub generation: u64,
    pub key: ClusterKey,
    pub ports: Vec<PortRoute>,
    pub vipas: Vec<VipaRoute>,
    pub targets: Vec<TargetRoute>,
    vipa_index: Index,
    target_index: Index,
}

/// A port of ours: how its network sees us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRoute {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub prefix_length: u8,
}

/// A VIPA: what this router is to it, and its services.
pub struct VipaRoute {
    pub address: Ipv4Addr,
    pub stance: Stance,
    /// Past it nothing new is admitted and ARP is not answered. Workers look at it once for each burst.
    pub lease: Arc<Deadline>,
    /// By protocol and first port; disjoint.
    pub services: Vec<ServiceRoute>,
    /// Until then unknown connections' packets are held although the table is complete: a target's late report may
    /// still name them.
    pub quiet_until: Moment,
}

/// A run of ports of a VIPA with the same targets.
#[derive(Clone, Debug)]
pub struct ServiceRoute {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub picker: Picker,
    pub orphans: Orphans,
}

/// How packets get to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRoute {
    pub address: Ipv4Addr,
    pub port: PortId,
    /// `None` until ARP has found it.
    pub mac: Option<Mac>,
    pub forwarding: Forwarding,
}

impl Routes {
    /// Sorts each VIPA's services. Of several VIPAs or targets with one address the first is found.
    ///
    /// # Panics
    /// With more than 65,535 VIPAs or targets, which their ids cannot name.
    #[must_use]
    pub fn build(
        generation: u64,
        key: ClusterKey,
        ports: Vec<PortRoute>,
        mut vipas: Vec<VipaRoute>,
        targets: Vec<TargetRoute>,
    ) -> Self {
        for vipa in &mut vipas {
            vipa.services.sort_by_key(|service| (service.protocol, service.ports.first));
        }
        let vipa_index = Index::build(vipas.iter().map(|vipa| vipa.address));
        let target_index = Index::build(targets.iter().map(|target| target.address));
        Self { generation, key, ports, vipas, targets, vipa_index, target_index }
    }

    /// Before anything is known.
    #[must_use]
    pub fn empty(key: ClusterKey) -> Self {
        Self::build(0, key, Vec::new(), Vec::new(), Vec::new())
    }

    /// The VIPA with this address (in numeric order).
    #[inline]
    #[must_use]
    pub fn find_vipa(&self, address: u32) -> Option<VipaId> {
        self.vipa_index.find(address).map(VipaId)
    }

    /// The target with this address (in numeric order).
    #[inline]
    #[must_use]
    pub fn find_target(&self, address: u32) -> Option<TargetId> {
        self.target_index.find(address).map(TargetId)
    }

    #[inline]
    #[must_use]
    pub fn vipa(&self, id: VipaId) -> Option<&VipaRoute> {
        self.vipas.get(usize::from(id.0))
    }

    #[inline]
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&TargetRoute> {
        self.targets.get(usize::from(id.0))
    }

    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&PortRoute> {
        self.ports.get(usize::from(id.0))
    }
}

impl VipaRoute {
    /// The service that a port belongs to.
    #[inline]
    #[must_use]
    pub fn find_service(&self, protocol: Protocol, port: u16) -> Option<&ServiceRoute> {
        let after =
            self.services.partition_point(|service| (service.protocol, service.ports.first) <= (protocol, port));
        let service = self.services[..after].last()?;
        (service.protocol == protocol && service.ports.contains(port)).then_some(service)
    }
}

impl fmt::Debug for VipaRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, stance, lease, services, quiet_until } = self;
        f.debug_struct("VipaRoute")
            .field("address", address)
            .field("stance", stance)
            .field("lease", &lease.get())
            .field("services", services)
            .field("quiet_until", quiet_until)
            .finish()
    }
}

/// Address → place in a list, by open addressing: at most half full, so that a look is nearly always one step.
/// The addresses are the configuration's, not the network's, so the hash needs no secret.
struct Index {
    slots: Box<[Slot]>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    address: u32,
    id: u16,
}

/// No list is that long.
const FREE: u16 = u16::MAX;

impl Index {
    fn build(addresses: impl ExactSizeIterator<Item = Ipv4Addr>) -> Self {
        assert!(addresses.len() < usize::from(FREE), "{} addresses are more than an id can name", addresses.len());
        let size = (addresses.len() * 2).next_power_of_two().max(2);
        let mut index =
            Self { slots: vec![Slot { address: 0, id: FREE }; size].into(), shift: u32::BITS - size.trailing_zeros() };
        for (id, address) in (0..FREE).zip(addresses) {
            let address = address.to_bits();
            let mut slot = index.start(address);
            while index.slots[slot].id != FREE && index.slots[slot].address != address {
                slot = (slot + 1) % size;
            }
            if index.slots[slot].id == FREE {
                index.slots[slot] = Slot { address, id };
            }
        }
        index
    }

    #[inline]
    fn find(&self, address: u32) -> Option<u16> {
        let mut place = self.start(address);
        loop {
            let slot = self.slots[place];
            if slot.id == FREE {
                return None;
            }
            if slot.address == address {
                return Some(slot.id);
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    /// Fibonacci hashing: the top bits of the product depend on all bits of the address.
    #[inline]
    fn start(&self, address: u32) -> usize {
        (address.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
