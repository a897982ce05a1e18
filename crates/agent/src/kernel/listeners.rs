//! Listeners on the ports of the VIPAs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipa_cluster::target::{Event, Watched};
use vipa_model::Protocol;

use super::{
    Observer,
    diag::{Socket, States},
    errors::Stop,
    whose::note_listener,
};

/// Listening ports reported for one VIPA; a service on all ports of a busy host has fewer.
const MAX_LISTENING: usize = 8192;

/// A listening socket, with the properties that assign it to VIPAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    protocol: Protocol,
    local: (IpAddr, u16),
    takes_ipv4: bool,
}

impl Listener {
    fn of(protocol: Protocol, socket: &Socket) -> Self {
        Self { protocol, local: socket.local, takes_ipv4: socket.takes_ipv4 }
    }
}

impl Observer {
    /// Reports listeners where they have changed. While the listening sockets stay the same there is nothing to
    /// compute, and for a thousand VIPAs that computation is most of the cost of a look.
    pub(super) fn tell_listening(&mut self) -> Result<(), Stop> {
        let mut listeners: Vec<(Protocol, Socket)> = Vec::new();
        let serves = |protocol| move |watched: &&Watched| watched.services.iter().any(|(of, _)| *of == protocol);
        for (protocol, states) in [(Protocol::Tcp, States::LISTENERS), (Protocol::Udp, States::UDP_BOUND)] {
            if self.watched.values().any(|watched| serves(protocol)(&watched)) {
                for namespace in &mut self.here {
                    namespace.diag.dump(protocol, states, |socket| listeners.push((protocol, socket)))?;
                }
            }
        }
        let mut who: Vec<Listener> =
            listeners.iter().map(|(protocol, socket)| Listener::of(*protocol, socket)).collect();
        who.sort_unstable();
        if self.listeners.as_ref() == Some(&who) {
            return Ok(());
        }
        let mut found: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>> =
            self.watched.keys().map(|vipa| (*vipa, BTreeSet::new())).collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let vipas: Vec<&Watched> = self.watched.values().filter(serves(protocol)).collect();
            for (_, socket) in listeners.iter().filter(|(of, _)| *of == protocol) {
                note_listener(&vipas, protocol, socket, &mut found);
            }
        }
        for (vipa, ports) in found {
            if self.listening.get(&vipa) != Some(&ports) {
                let listening = ports.iter().copied().take(MAX_LISTENING).collect();
                self.tell(Event::Listening { vipa, listening })?;
                self.listening.insert(vipa, ports);
            }
        }
        self.listeners = Some(who);
        Ok(())
    }
}
