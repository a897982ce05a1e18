//! Where packets leave: one queue for each port, filled during a turn and given to the port at its end.

use arrayvec::ArrayVec;
use vipa_handoff::{Count, Counters, Fate, LocalReply, PortRoute, Reason};
use vipa_model::{PortId, TargetId};
use vipa_packet::{PacketBuf, arp, icmp, set_macs, tcp};

use crate::{BURST, Scene, Tx};

/// A port's transmit queue and what is on its way there.
struct Outlet<T: Tx> {
    tx: T,
    waiting: ArrayVec<T::Buf, BURST>,
    /// What each waiting packet's fate is if the port takes it.
    fates: ArrayVec<Fate, BURST>,
}

/// One for each port, by `PortId`.
pub(crate) struct Outlets<T: Tx> {
    outlets: Vec<Outlet<T>>,
}

impl<T: Tx> Outlets<T> {
    pub(crate) fn new(queues: Vec<T>) -> Self {
        let outlet = |tx| Outlet { tx, waiting: ArrayVec::new(), fates: ArrayVec::new() };
        Self { outlets: queues.into_iter().map(outlet).collect() }
    }

    /// Sends a packet to a target by direct return; gives it back when the target cannot be reached yet.
    #[inline(always)]
    pub(crate) fn forward(&mut self, scene: &Scene<'_>, target: TargetId, mut packet: T::Buf) -> Result<(), T::Buf> {
        let Some(route) = scene.routes.target(target) else { return Err(packet) };
        let Some(mac) = route.mac else { return Err(packet) };
        let Some((port, outlet)) = self.outlet(scene, route.port) else { return Err(packet) };
        set_macs(packet.bytes_mut(), &mac.0, &port.mac.0);
        outlet.push(&scene.desk.counters, packet, Fate::Forward);
        Ok(())
    }

    /// Turns a packet into its answer and sends it back where it came from.
    #[inline(never)]
    pub(crate) fn answer(&mut self, scene: &Scene<'_>, from: PortId, reply: LocalReply, mut packet: T::Buf) {
        let counters = &scene.desk.counters;
        match self.outlet(scene, from) {
            Some((port, outlet)) if write_answer(port, reply, &mut packet) => {
                outlet.push(counters, packet, Fate::Local(reply));
            }
            // An answer that cannot be written: a ping with IP options, say.
            _ => counters.add(Fate::Drop(unanswered(reply)), 1),
        }
    }

    /// Sends a frame of control's at once.
    pub(crate) fn compose(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.outlets.get_mut(usize::from(port.0)).is_some_and(|outlet| outlet.tx.compose(frame))
    }

    /// Gives the ports everything that waits.
    #[inline]
    pub(crate) fn transmit(&mut self, counters: &Counters) {
        for outlet in &mut self.outlets {
            if !outlet.waiting.is_empty() {
                outlet.transmit(counters);
            }
        }
    }

    #[inline(always)]
    fn outlet<'a>(&mut self, scene: &Scene<'a>, port: PortId) -> Option<(&'a PortRoute, &mut Outlet<T>)> {
        scene.routes.port(port).zip(self.outlets.get_mut(usize::from(port.0)))
    }

    pub(crate) fn queue(&mut self, port: PortId) -> Option<&mut T> {
        self.outlets.get_mut(usize::from(port.0)).map(|outlet| &mut outlet.tx)
    }
}

impl<T: Tx> Outlet<T> {
    #[inline(always)]
    fn push(&mut self, counters: &Counters, packet: T::Buf, fate: Fate) {
        if self.waiting.is_full() {
            self.transmit(counters);
        }
        self.waiting.push(packet);
        self.fates.push(fate);
    }

    /// What the port refuses is freed and counted: it is full, and will be on a second try.
    #[inline]
    fn transmit(&mut self, counters: &Counters) {
        self.tx.burst(&mut self.waiting);
        let refused = self.waiting.len();
        let taken = self.fates.len() - refused;
        let mut forwarded = 0;
        for fate in &self.fates[..taken] {
            match fate {
                Fate::Forward => forwarded += 1,
                other => counters.add(*other, 1),
            }
        }
        counters.add(Fate::Forward, forwarded);
        counters.add(Count::Sent, taken as u64);
        if refused > 0 {
            counters.add(Fate::Drop(Reason::TxRefused), refused as u64);
            self.waiting.clear();
        }
        self.fates.clear();
    }
}

/// Rewrites a packet into its answer; false, and nothing changed, when it has none.
fn write_answer(port: &PortRoute, reply: LocalReply, packet: &mut impl PacketBuf) -> bool {
    let Ok(parsed) = vipa_packet::parse(packet.bytes()) else { return false };
    match reply {
        LocalReply::Arp => arp::reply(packet.bytes_mut(), parsed.l3, &port.mac.0),
        LocalReply::IcmpEcho => icmp::echo_reply(packet.bytes_mut(), &parsed, &port.mac.0),
        LocalReply::Reset => tcp::reset(packet, &parsed, &port.mac.0),
    }
}

fn unanswered(reply: LocalReply) -> Reason {
    match reply {
        LocalReply::Arp => Reason::ArpOfOthers,
        LocalReply::IcmpEcho => Reason::Icmp,
        LocalReply::Reset => Reason::Orphan,
    }
}
