//! Packets: from the clients through the routers to the targets, and back.

use vipa_packet::{Body, HeapPacket, PacketBuf};

use super::{HOP, MS, SILENCE, Time, What, World, router_mac};
use crate::{
    client::{Answer, Dialog, Stage, connection, frame, question},
    host::{Host, Reaction},
};

impl World {
    pub(super) fn turn(&mut self, router: usize, arriving: Option<HeapPacket>) {
        let now = self.local(router);
        let syn = arriving.as_ref().and_then(opening_port);
        let Some(gateway) = &mut self.gateways[router] else { return };
        // A connection of which nothing is known goes to who may have it, and to nobody else.
        let fresh = syn.filter(|port| gateway.knows(&connection(*port)).is_none());
        let allowed = fresh.map(|_| gateway.eligible());
        let sent = gateway.turn(now, arriving);
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

    pub(super) fn towards_client(&mut self, router: usize, frame: &HeapPacket) {
        match vipa_packet::parse(frame.bytes()).map(|parsed| parsed.body) {
            Ok(Body::Arp(_)) => self.plan(self.now + HOP, What::ArpAtClient { router }),
            Ok(Body::Ipv4Tcp(tcp)) => {
                let name = self.nodes[router].name.clone();
                self.tell(|| format!("{name}: resets the connection of port {}", tcp.destination_port));
                let (port, answer) = (tcp.destination_port, Answer::Reset);
                self.plan(self.now + HOP, What::ToClient { port, answer, from: None });
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
        let reaction = if tcp.flags.opens() {
            self.hosts[target].syn(port)
        } else {
            self.check_delivery(router, target, port);
            let payload = &frame.bytes()[usize::from(parsed.l4) + 20..parsed.end as usize];
            match <[u8; 8]>::try_from(payload) {
                Ok(number) => self.hosts[target].data(port, u64::from_be_bytes(number)),
                Err(_) => self.end_at(target, port),
            }
        };
        match reaction {
            Reaction::Silence => {}
            Reaction::Answer(answer) => {
                if answer == Answer::Reset {
                    self.tell(|| {
                        format!("t{}: resets the connection of port {port}, forwarded by r{}", target + 1, router + 1)
                    });
                }
                self.plan(self.now + HOP, What::ToClient { port, answer, from: Some(target) });
            }
            Reaction::Hole { expected, came } => {
                self.fail(format!("port {port}: message {came} came before {expected}: bytes were lost"));
            }
        }
    }

    pub(super) fn end_at(&mut self, target: usize, port: u16) -> Reaction {
        let (reaction, ended) = self.hosts[target].fin(port);
        let node = self.scene.routers + target;
        let agent_runs = self.nodes[node].alive && self.nodes[node].paused_until <= self.now;
        if ended && agent_runs && self.random.chance(700) {
            self.feed_target(node, Host::ended(port));
        }
        reaction
    }

    pub(super) fn open_dialog(&mut self, at: Time) {
        let port = self.next_port;
        self.next_port += 1;
        let dialog = Dialog::new(port, at, &mut self.random);
        self.dialogs.insert(port, (dialog, at));
        self.summary.connections += 1;
        self.plan(at, What::Act { port, due: at });
    }

    pub(super) fn act(&mut self, port: u16, due: Time) {
        if self.now >= SILENCE {
            return;
        }
        let Some((dialog, at)) = self.dialogs.get_mut(&port).filter(|(_, at)| *at == due) else { return };
        let wish = dialog.act();
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
        if let (Some(segment), Some(router)) = (wish.frame, self.vipa_at) {
            if wish.asks {
                self.tell(|| format!("port {port}: sends {segment:?} again, to r{}", router + 1));
            }
            let frame = frame(port, segment, router_mac(router));
            self.plan(self.now + HOP, What::ToRouter { router, frame });
        }
    }

    pub(super) fn at_client(&mut self, port: u16, answer: Answer, from: Option<usize>) {
        let now = self.now;
        let Some((dialog, at)) = self.dialogs.get_mut(&port) else { return };
        let before = dialog.stage;
        if let Some(soon) = dialog.hear(now, answer, from) {
            *at = now + soon;
            let due = *at;
            self.plan(due, What::Act { port, due });
        }
        let Some((dialog, _)) = self.dialogs.get(&port) else { return };
        let (stage, holder) = (dialog.stage, dialog.holder);
        if stage == before {
            return;
        }
        match stage {
            Stage::Broken => {
                self.summary.broken += 1;
                self.check_break(port, holder, from);
            }
            Stage::Opening | Stage::Open | Stage::Closing => {}
            Stage::Closed | Stage::Refused => {}
        }
        if matches!(stage, Stage::Closed | Stage::Refused | Stage::Broken) && now < SILENCE - 2000 * MS {
            let at = now + self.random.within(10 * MS..300 * MS);
            self.open_dialog(at);
        }
    }
}

/// The port of a client's first segment.
fn opening_port(frame: &HeapPacket) -> Option<u16> {
    match vipa_packet::parse(frame.bytes()).ok()?.body {
        Body::Ipv4Tcp(tcp) if tcp.flags.opens() => Some(tcp.source_port),
        _ => None,
    }
}
