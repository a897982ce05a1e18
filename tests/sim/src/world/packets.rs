//! Packets: from the clients through the routers to the targets, and back.

use vipa_packet::{Body, HeapPacket, PacketBuf, TcpFlags};

use super::{HOP, MS, SILENCE, Time, What, World, router_mac};
use crate::{
    client::{AnswerEffect, Dialog, DialogLimit, Stage, connection, question},
    host::Reaction,
    segment::{Answer, Generation, Received, Segment, reset_connection},
};

impl World {
    pub(super) fn turn(&mut self, router: usize, arriving: Option<HeapPacket>) {
        let now = self.local(router);
        let of = arriving.as_ref().and_then(from_client);
        let syn = of.and_then(|(port, flags)| flags.opens().then_some(port));
        let of = of.map(|(port, flags)| (connection(port), flags));
        if let Some(port) = syn.filter(|_| arriving.as_ref().is_some_and(is_forged)) {
            self.note_exposure(router, port);
        }
        let Some(gateway) = &mut self.gateways[router] else { return };
        // A connection that is in no table goes only to targets that are allowed to get it.
        let fresh = syn.filter(|port| gateway.knows(&connection(*port)).is_none());
        let allowed = fresh.map(|_| gateway.eligible());
        let sent = gateway.turn(now, arriving, of);
        for frame in sent {
            let destination: [u8; 6] = frame.bytes()[..6].try_into().expect("an Ethernet header");
            match destination {
                [2, 0, 0, 0, 2, target] => {
                    let target = usize::from(target);
                    if let Some(allowed) = allowed.as_ref().filter(|_| opening_port(&frame) == fresh) {
                        self.check_admission(router, target, allowed);
                    }
                    self.plan(self.now + HOP, What::ToTarget { target, router, frame });
                }
                _ => self.towards_client(router, &frame),
            }
        }
    }

    /// A forged SYN has arrived at this router.
    fn note_exposure(&mut self, router: usize, port: u16) {
        let (Some(gateway), Some((dialog, _))) = (&self.gateways[router], self.dialogs.get(&port)) else { return };
        if dialog.holder.is_some_and(|holder| !gateway.is_complete(holder)) {
            self.checks.exposed.insert((router, dialog.generation));
        }
    }

    pub(super) fn towards_client(&mut self, router: usize, frame: &HeapPacket) {
        match vipa_packet::parse(frame.bytes()).map(|parsed| parsed.body) {
            Ok(Body::Arp(_)) => self.plan(self.now + HOP, What::ArpAtClient { router }),
            Ok(Body::Ipv4Tcp(tcp)) => {
                let name = self.nodes[router].name.clone();
                self.tell(|| format!("{name}: resets the connection of port {}", tcp.destination_port));
                let Some(generation) = vipa_packet::parse(frame.bytes())
                    .ok()
                    .and_then(|parsed| reset_connection(frame.bytes(), &parsed, tcp.flags))
                else {
                    return;
                };
                let (port, answer) = (tcp.destination_port, Answer::Reset);
                self.plan(self.now + HOP, What::ToClient { port, generation, answer, from: None });
            }
            _ => {}
        }
    }

    pub(super) fn at_target(&mut self, target: usize, router: usize, frame: &HeapPacket) {
        let Ok(parsed) = vipa_packet::parse(frame.bytes()) else {
            return self.fail(format!("a router sent target {target} a malformed frame"));
        };
        let Body::Ipv4Tcp(tcp) = parsed.body else { return };
        let port = tcp.source_port;
        if !self.hosts[target].powered {
            return;
        }
        let Some(received) = Received::read(frame.bytes(), &parsed, tcp.flags, port) else { return };
        if received.segment != Segment::Syn {
            self.check_delivery(router, target, &received);
        }
        let Reaction { answer, change, late_at, hole } = self.hosts[target].receive(self.now, &received);
        if change.is_some() {
            self.tell_changes(target);
        }
        let generation = received.generation;
        if let Some(at) = late_at {
            self.plan(at, What::SendLate { target, port, generation });
        }
        if let Some((came, expected)) = hole {
            self.fail(format!("port {port}: request {came} came before {expected}: bytes were lost"));
        }
        if let Some((generation, answer)) = answer {
            if answer == Answer::Reset {
                self.tell(|| {
                    format!("t{}: resets the connection of port {port}, forwarded by r{}", target + 1, router + 1)
                });
            }
            self.plan(self.now + HOP, What::ToClient { port, generation, answer, from: Some(target) });
        }
    }

    /// An agent that receives changes handles them at once, if it runs.
    fn tell_changes(&mut self, target: usize) {
        let node = self.scene.routers + target;
        if self.runs(node)
            && self.hosts[target].mute_until <= self.now
            && let Some(changes) = self.hosts[target].take_told()
        {
            self.feed_target(node, changes);
        }
    }

    pub(super) fn send_late(&mut self, target: usize, port: u16, generation: Generation) {
        if self.now >= SILENCE {
            return;
        }
        if let Some((answer, again)) = self.hosts[target].send_late(self.now, port, generation) {
            self.plan(self.now + HOP, What::ToClient { port, generation, answer, from: Some(target) });
            self.plan(again, What::SendLate { target, port, generation });
        }
    }

    /// A client connects: from this port, or from one that was not used before.
    pub(super) fn open_dialog(&mut self, at: Time, port: Option<u16>, tenure: DialogLimit) {
        let port = port.unwrap_or_else(|| {
            self.next_port += 1;
            self.next_port
        });
        self.generations += 1;
        let dialog = Dialog::new(port, Generation(self.generations), at, tenure, &mut self.random);
        self.dialogs.insert(port, (dialog, at));
        self.summary.connections += 1;
        self.plan(at, What::Act { port, due: at });
    }

    pub(super) fn act(&mut self, port: u16, due: Time) {
        if self.now >= SILENCE {
            return;
        }
        let Some((dialog, at)) = self.dialogs.get_mut(&port).filter(|(_, at)| *at == due) else { return };
        let before = dialog.stage;
        let wish = dialog.act();
        let (generation, server) = (dialog.generation, dialog.holder);
        if let Some(again) = wish.again {
            *at = due + again;
            let due = *at;
            self.plan(due, What::Act { port, due });
        }
        if wish.asks || self.vipa_at.is_none() {
            for router in 0..self.scene.routers {
                self.plan(self.now + HOP, What::ToRouter { router, frame: question() });
            }
        }
        if let Some(segment) = wish.segment {
            if wish.asks {
                self.tell(|| format!("port {port}: sends {segment:?} again"));
            }
            self.send(&Received { port, generation, server, segment });
        }
        self.stage_changed(port, before, None);
    }

    /// Sends a client's segment to the router that has the VIPA. A few take longer than those sent after them.
    fn send(&mut self, segment: &Received) {
        let Some(router) = self.vipa_at else { return };
        let late = if self.random.chance(30) { self.random.within(0..20 * MS) } else { 0 };
        let frame = segment.frame(router_mac(router));
        self.plan(self.now + HOP + late, What::ToRouter { router, frame });
    }

    pub(super) fn at_client(&mut self, port: u16, generation: Generation, answer: Answer, from: Option<usize>) {
        let now = self.now;
        let Some((dialog, at)) = self.dialogs.get_mut(&port) else { return };
        let before = dialog.stage;
        let reply = if generation == dialog.generation {
            let AnswerEffect { reply, again } = dialog.receive(now, answer, from);
            if let Some(soon) = again {
                *at = now + soon;
                let due = *at;
                self.plan(due, What::Act { port, due });
            }
            reply
        } else if answer == Answer::Challenge && before == Stage::Opening {
            // The server holds a connection of this port that the client no longer has (RFC 9293 §3.10.7.3).
            Some(Segment::Rst)
        } else {
            Dialog::disown(answer)
        };
        if let Some(segment) = reply {
            self.send(&Received { port, generation, server: from, segment });
        }
        self.stage_changed(port, before, from);
    }

    fn stage_changed(&mut self, port: u16, before: Stage, from: Option<usize>) {
        let now = self.now;
        let Some((dialog, _)) = self.dialogs.get(&port) else { return };
        let (stage, holder) = (dialog.stage, dialog.holder);
        if stage == before {
            return;
        }
        if stage == Stage::Broken {
            self.summary.broken += 1;
            self.check_break(port, holder, from);
        }
        let is_over = matches!(stage, Stage::Closed | Stage::Refused | Stage::Broken);
        if is_over && now < SILENCE - 2000 * MS {
            let reused = self.random.chance(600).then_some(port);
            let soon = if reused.is_some() { 0..20 * MS } else { 10 * MS..300 * MS };
            let at = now + self.random.within(soon);
            self.open_dialog(at, reused, DialogLimit::Short);
        }
    }

    /// An attacker with a connection's addresses and ports, but not its numbers, sends segments of it.
    pub(super) fn attack(&mut self) {
        if self.now >= SILENCE {
            return;
        }
        let next = self.now + self.random.within(5 * MS..60 * MS);
        self.plan(next, What::Attack);
        let chosen = self.random.index(self.dialogs.len().max(1));
        let port = self.dialogs.keys().nth(chosen).copied();
        let (Some(port), Some(router)) = (port, self.vipa_at) else { return };
        let segments: &[Segment] = match self.random.within(0..5) {
            0 => &[Segment::Fin],
            1 => &[Segment::Rst],
            2 => &[Segment::Syn],
            3 => &[Segment::Rst, Segment::Syn],
            _ => &[Segment::Data { number: 0, last: false }],
        };
        self.tell(|| format!("somebody sends {segments:?} of port {port}"));
        for (segment, at) in segments.iter().zip((self.now + HOP..).step_by(HOP as usize)) {
            let forged = Received { port, generation: Generation::FORGED, server: None, segment: *segment };
            self.plan(at, What::ToRouter { router, frame: forged.frame(router_mac(router)) });
        }
    }
}

/// The port of a client's segment, and its flags.
fn from_client(frame: &HeapPacket) -> Option<(u16, TcpFlags)> {
    match vipa_packet::parse(frame.bytes()).ok()?.body {
        Body::Ipv4Tcp(tcp) => Some((tcp.source_port, tcp.flags)),
        _ => None,
    }
}

fn is_forged(frame: &HeapPacket) -> bool {
    let bytes = frame.bytes();
    let parsed = vipa_packet::parse(bytes).ok();
    let received =
        parsed.zip(from_client(frame)).and_then(|(parsed, (port, flags))| Received::read(bytes, &parsed, flags, port));
    received.is_some_and(|received| received.generation == Generation::FORGED)
}

/// The port of a client's first segment.
fn opening_port(frame: &HeapPacket) -> Option<u16> {
    from_client(frame).and_then(|(port, flags)| flags.opens().then_some(port))
}
