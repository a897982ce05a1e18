//! Transmit side: one queue for each port, filled during a turn and given to the port at its end.

use arrayvec::ArrayVec;
use vipa_handoff::{Count, CounterId, Counters, Fate, LocalReply, PortRoute, Reason};
use vipa_model::PortId;
use vipa_packet::{EthernetHeader, PacketBuf, arp, ethernet, icmp, icmp6, nd, tcp};

use crate::{BURST, TurnContext, Tx, limit::TokenBucket};

/// A port's transmit queue, and the packets waiting for it.
struct TxPort<T: Tx> {
    tx: T,
    waiting: ArrayVec<T::Buf, BURST>,
    /// By index in `waiting`: the counter of a packet that the port takes, where that is not "forwarded". It is another
    /// fate, or that of a further fragment of a packet that has its own fate.
    others: ArrayVec<(u8, CounterId), BURST>,
    /// Rate limit of a kernel interface.
    share: Option<TokenBucket>,
}

/// One for each port, by `PortId`; those of kernel interfaces come after the others.
pub(crate) struct TxPorts<T: Tx> {
    tx_ports: Vec<TxPort<T>>,
    /// Rate limit of answers that anybody can request: pings, resets, ICMP errors.
    answers: TokenBucket,
}

impl<T: Tx> TxPorts<T> {
    /// `shares` has this worker's packets a second to each kernel interface, `None` for the other ports.
    pub(crate) fn new(queues: Vec<T>, shares: &[Option<u32>], answers_per_second: u32) -> Self {
        let share = |index: usize| shares.get(index).copied().flatten().map(TokenBucket::new);
        let tx_port =
            |(index, tx)| TxPort { tx, waiting: ArrayVec::new(), others: ArrayVec::new(), share: share(index) };
        let tx_ports = queues.into_iter().enumerate().map(tx_port).collect();
        Self { tx_ports, answers: TokenBucket::new(answers_per_second) }
    }

    /// Gives a packet to a port; returns it when there is no such port.
    #[inline(always)]
    pub(crate) fn send(&mut self, counters: &Counters, port: PortId, packet: T::Buf, fate: Fate) -> Result<(), T::Buf> {
        match self.tx_ports.get_mut(usize::from(port.0)) {
            Some(tx_port) => {
                tx_port.push(counters, packet, CounterId::Fate(fate));
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Gives a port the first `ready` packets of a burst, to be forwarded: a whole burst as it is.
    #[inline(always)]
    pub(crate) fn send_first(
        &mut self,
        counters: &Counters,
        port: PortId,
        burst: &mut ArrayVec<T::Buf, BURST>,
        ready: usize,
    ) {
        match self.tx_ports.get_mut(usize::from(port.0)) {
            Some(tx_port) if ready == BURST && tx_port.waiting.is_empty() => {
                tx_port.tx.burst(burst);
                tx_port.forwarded(counters, burst);
            }
            Some(tx_port) => {
                for packet in burst.drain(..ready) {
                    tx_port.push(counters, packet, CounterId::Fate(Fate::Forward));
                }
            }
            None => {
                counters.add(Fate::Drop(Reason::NoRoute), ready as u64);
                burst.drain(..ready);
            }
        }
    }

    /// A new packet for a port, with these bytes.
    pub(crate) fn make(&mut self, port: PortId, frame: &[u8]) -> Option<T::Buf> {
        self.tx_ports.get_mut(usize::from(port.0))?.tx.make(frame)
    }

    /// Gives a further fragment of a packet to a port.
    pub(crate) fn send_part(&mut self, counters: &Counters, port: PortId, part: T::Buf) {
        if let Some(tx_port) = self.tx_ports.get_mut(usize::from(port.0)) {
            tx_port.push(counters, part, CounterId::Count(Count::PartSent));
        }
    }

    /// Turns a packet into its answer and sends that by the port at which the packet arrived.
    #[inline(never)]
    pub(crate) fn answer(&mut self, context: &TurnContext<'_>, from: PortId, reply: LocalReply, packet: T::Buf) {
        self.answer_with(context, from, reply, packet, |port, packet| write_answer(port, reply, packet));
    }

    /// Sends a packet's sender the ICMP error that nothing larger than `mtu` passes.
    #[inline(never)]
    pub(crate) fn answer_too_big(&mut self, context: &TurnContext<'_>, from: PortId, packet: T::Buf, mtu: u16) {
        self.answer_with(context, from, LocalReply::TooBig, packet, |port, packet| write_too_big(port, mtu, packet));
    }

    fn answer_with(
        &mut self,
        context: &TurnContext<'_>,
        from: PortId,
        reply: LocalReply,
        mut packet: T::Buf,
        write: impl FnOnce(&PortRoute, &mut T::Buf) -> bool,
    ) {
        let counters = &context.shared.counters;
        let asked_by_neighbours = matches!(reply, LocalReply::Arp | LocalReply::Neighbour);
        if !asked_by_neighbours && !self.answers.take(context.now) {
            return counters.add(Fate::Drop(Reason::AnswerLimit), 1);
        }
        let written = context.routes.port(from).is_some_and(|port| write(port, &mut packet));
        // An answer that cannot be written, for example an error about an error.
        if !written || self.send(counters, from, packet, Fate::Local(reply)).is_err() {
            counters.add(Fate::Drop(unanswered(reply)), 1);
        }
    }

    /// Gives a packet to a kernel interface, as the kernel would have received it from the NIC.
    #[inline(never)]
    pub(crate) fn pass_to_kernel(&mut self, context: &TurnContext<'_>, kernel: PortId, mut packet: T::Buf) {
        let counters = &context.shared.counters;
        let share = self.tx_ports.get_mut(usize::from(kernel.0)).and_then(|tx_port| tx_port.share.as_mut());
        if !share.is_some_and(|share| share.take(context.now)) {
            return counters.add(Fate::Drop(Reason::KernelLimit), 1);
        }
        retag(&mut packet, None);
        if self.send(counters, kernel, packet, Fate::ToKernel).is_err() {
            counters.add(Fate::Drop(Reason::NoRoute), 1);
        }
    }

    /// Sends a packet of the kernel out of its port.
    #[inline(never)]
    pub(crate) fn pass_from_kernel(&mut self, context: &TurnContext<'_>, port: PortId, mut packet: T::Buf) {
        let counters = &context.shared.counters;
        retag(&mut packet, context.routes.port(port).and_then(|port| port.vlan));
        if self.send(counters, port, packet, Fate::FromKernel).is_err() {
            counters.add(Fate::Drop(Reason::NoRoute), 1);
        }
    }

    /// Sends a frame of control at once.
    pub(crate) fn compose(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.tx_ports.get_mut(usize::from(port.0)).is_some_and(|tx_port| tx_port.tx.compose(frame))
    }

    /// The packets that wait for the ports.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (PortId, &[u8])> {
        let ports = (0..=u16::MAX).map(PortId).zip(&self.tx_ports);
        ports.flat_map(|(port, of)| of.waiting.iter().map(move |packet| (port, packet.bytes())))
    }

    /// Gives all waiting packets to the ports.
    #[inline]
    pub(crate) fn transmit(&mut self, counters: &Counters) {
        for tx_port in &mut self.tx_ports {
            if !tx_port.waiting.is_empty() {
                tx_port.transmit(counters);
            }
        }
    }

    pub(crate) fn queue(&mut self, port: PortId) -> Option<&mut T> {
        self.tx_ports.get_mut(usize::from(port.0)).map(|tx_port| &mut tx_port.tx)
    }
}

impl<T: Tx> TxPort<T> {
    #[inline(always)]
    fn push(&mut self, counters: &Counters, packet: T::Buf, taken: CounterId) {
        if self.waiting.is_full() {
            self.transmit(counters);
        }
        if taken != CounterId::Fate(Fate::Forward) {
            self.others.push((self.waiting.len() as u8, taken));
        }
        self.waiting.push(packet);
    }

    /// Counts a burst that the port was given to forward, and of which it has left these.
    #[inline]
    fn forwarded(&self, counters: &Counters, left: &mut ArrayVec<T::Buf, BURST>) {
        let sent = BURST - left.len();
        counters.add(Fate::Forward, sent as u64);
        counters.add(Count::Sent, sent as u64);
        if sent < BURST {
            counters.add(Fate::Drop(Reason::TxRefused), left.len() as u64);
            left.clear();
        }
    }

    /// A packet that the port refuses is freed and counted: the port is full, and would be on a second try.
    #[inline(never)]
    fn transmit(&mut self, counters: &Counters) {
        let offered = self.waiting.len();
        self.tx.burst(&mut self.waiting);
        let sent = offered - self.waiting.len();
        let mut forwarded = sent;
        for (_, cell) in self.others.iter().filter(|(place, _)| usize::from(*place) < sent) {
            counters.add(*cell, 1);
            forwarded -= 1;
        }
        counters.add(Fate::Forward, forwarded as u64);
        counters.add(Count::Sent, sent as u64);
        if sent < offered {
            self.refuse(counters, sent);
        }
        self.others.clear();
    }

    #[cold]
    fn refuse(&mut self, counters: &Counters, sent: usize) {
        let is_part =
            |(place, cell): &&(u8, CounterId)| usize::from(*place) >= sent && !matches!(cell, CounterId::Fate(_));
        let packets = self.waiting.len() - self.others.iter().filter(is_part).count();
        counters.add(Fate::Drop(Reason::TxRefused), packets as u64);
        self.waiting.clear();
    }
}

/// Gives a frame this VLAN tag, or none, whatever it had.
fn retag(packet: &mut impl PacketBuf, vlan: Option<u16>) {
    let frame = packet.bytes();
    let (Some(destination), Some(source)) = (frame.first_chunk::<6>(), frame.get(6..12)) else { return };
    let Some((tagged, ether_type)) = ethernet::ether_type(frame) else { return };
    if !tagged && vlan.is_none() {
        return;
    }
    let mut link = EthernetHeader { source: [0; 6], destination: *destination, vlan };
    link.source.copy_from_slice(source);
    let l3 = if tagged { ethernet::HEADER + ethernet::VLAN_TAG } else { ethernet::HEADER };
    // Without headroom the frame leaves as it is, and a receiver that expects the tag drops it.
    let _ = ethernet::replace_ethernet_header(packet, l3, ether_type, &link);
}

/// Rewrites a packet into its answer; false, with nothing changed, when it has none.
fn write_answer(port: &PortRoute, reply: LocalReply, packet: &mut impl PacketBuf) -> bool {
    let Ok(parsed) = vipa_packet::parse(packet.bytes()) else { return false };
    match reply {
        LocalReply::Arp => arp::reply(packet.bytes_mut(), parsed.l3, &port.mac.0),
        LocalReply::Neighbour => nd::advertise(packet, &parsed, &port.mac.0),
        LocalReply::IcmpEcho => {
            icmp::echo_reply(packet.bytes_mut(), &parsed, &port.mac.0)
                || icmp6::echo_reply(packet, &parsed, &port.mac.0)
        }
        LocalReply::Reset => tcp::reset(packet, &parsed, &port.mac.0),
        LocalReply::TimeExceeded => {
            let (our_mac, our_address) = (&port.mac.0, port.address6.map(|(address, _)| address.to_bits()));
            icmp::time_exceeded(packet, &parsed, port.address.to_bits(), our_mac)
                || icmp6::time_exceeded(packet, &parsed, our_address, our_mac)
        }
        LocalReply::Unreachable => {
            icmp::port_unreachable(packet, &parsed, &port.mac.0)
                || icmp6::port_unreachable(packet, &parsed, &port.mac.0)
        }
        LocalReply::TooBig => false,
    }
}

/// Writes an ICMP error with the packet's destination as its source: its sender knows the VIPA only.
fn write_too_big(port: &PortRoute, mtu: u16, packet: &mut impl PacketBuf) -> bool {
    let Ok(parsed) = vipa_packet::parse(packet.bytes()) else { return false };
    icmp::too_big(packet, &parsed, mtu, &port.mac.0) || icmp6::too_big(packet, &parsed, mtu, &port.mac.0)
}

fn unanswered(reply: LocalReply) -> Reason {
    match reply {
        LocalReply::Arp | LocalReply::Neighbour => Reason::ArpOfOthers,
        LocalReply::IcmpEcho => Reason::Icmp,
        LocalReply::Reset => Reason::Orphan,
        LocalReply::TooBig => Reason::TooBig,
        LocalReply::TimeExceeded => Reason::TimeToLive,
        LocalReply::Unreachable => Reason::NoService,
    }
}
