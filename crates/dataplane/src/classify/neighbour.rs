//! Address resolution on the link: ARP and IPv6 neighbour discovery, questions and answers.

use std::net::IpAddr;

use vipa_handoff::{Fate, LocalReply, Note};
use vipa_model::Mac;
use vipa_packet::{
    Arp, Icmp6, Ipv6Icmp, L2Destination,
    arp::Operation,
    ethernet,
    nd::{Advertisement, Solicitation},
};

use super::{Ingress, answered_vipa};
use crate::{TurnContext, batch::Verdict};

/// Answers questions for an address of ours, and reports to control the neighbours that were learnt: stations that sent
/// to us, targets whatever they sent, and other stations that claim an owned VIPA. `None`: the packet does not concern
/// this router.
#[inline(never)]
pub(super) fn arp(
    context: &TurnContext<'_>,
    at: Ingress<'_>,
    l2_destination: L2Destination,
    message: &Arp,
) -> Option<Verdict> {
    let ours = message.target == at.route.address || answered_vipa(context, message.target.into());
    let neighbour = message.neighbour().map(|(address, mac)| (IpAddr::V4(address), mac));
    let told = report(context, at, ours || l2_destination == L2Destination::Ours, neighbour);
    if ours && message.operation == Operation::Request && !message.is_announcement() {
        Some(Verdict::Answer(LocalReply::Arp))
    } else {
        told.then(|| punt(at))
    }
}

/// [`arp`] for IPv6. `None`: the packet does not concern this router, or is no neighbour discovery.
pub(super) fn discovery(context: &TurnContext<'_>, at: Ingress<'_>, frame: &[u8], icmp: &Ipv6Icmp) -> Option<Verdict> {
    match icmp.message {
        Icmp6::Solicitation(Solicitation { target, source_mac }) => {
            let wanted = IpAddr::V6(target.into());
            let ours = context.routes.is_own(wanted) || answered_vipa(context, wanted);
            // From the unspecified address a station checks whether the address is free for itself (RFC 4862 §5.4.2).
            let neighbour = if icmp.source == 0 {
                claim(context, wanted, ethernet::source(frame))
            } else {
                let asker = IpAddr::V6(icmp.source.into());
                source_mac.map(|mac| (asker, mac)).or_else(|| claim(context, asker, ethernet::source(frame)))
            };
            let told = report(context, at, ours, neighbour);
            if ours { Some(Verdict::Answer(LocalReply::Neighbour)) } else { told.then(|| punt(at)) }
        }
        Icmp6::Advertisement(Advertisement { target, mac, .. }) => {
            let address = IpAddr::V6(target.into());
            let neighbour = mac.map(|mac| (address, mac)).or_else(|| claim(context, address, ethernet::source(frame)));
            report(context, at, true, neighbour).then(|| punt(at))
        }
        _ => None,
    }
}

/// Reports a neighbour's MAC to control, if control may need it; returns whether it was reported.
fn report(context: &TurnContext<'_>, at: Ingress<'_>, to_us: bool, neighbour: Option<(IpAddr, [u8; 6])>) -> bool {
    let Some((address, mac)) = neighbour else { return false };
    let (port, mac) = (at.port, Mac(mac));
    let note = if is_conflict(context, address, mac) {
        Note::Conflict { port, vipa: address, mac }
    } else if to_us || context.routes.is_target(address) {
        Note::Neighbour { port, address, mac }
    } else {
        return false;
    };
    // A full mailbox counts what it refuses; the neighbour will be asked again.
    context.shared.notes.try_send(note).is_ok()
}

/// A station's claim to `address`, with the frame's source MAC because the message has none; `None` if `address` is no
/// owned VIPA.
fn claim(context: &TurnContext<'_>, address: IpAddr, source: Option<[u8; 6]>) -> Option<(IpAddr, [u8; 6])> {
    let mac = source.filter(|mac| is_conflict(context, address, Mac(*mac)))?;
    Some((address, mac))
}

/// Whether another station claims a VIPA that this router owns. This router's own frames may come back to it by another
/// port, or from a switch.
fn is_conflict(context: &TurnContext<'_>, address: IpAddr, mac: Mac) -> bool {
    answered_vipa(context, address) && context.routes.ports.iter().all(|port| port.mac != mac)
}

/// Verdict for a packet that was reported to control; the kernel behind the port resolves neighbours of its own.
fn punt(at: Ingress<'_>) -> Verdict {
    at.route.kernel.map_or(Verdict::Done(Fate::Punt), Verdict::ToKernel)
}
