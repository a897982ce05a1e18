//! Who has which address on the link: ARP and IPv6's neighbour discovery, both asked and told.

use std::net::IpAddr;

use vipa_handoff::{Fate, LocalReply, Note};
use vipa_model::Mac;
use vipa_packet::{
    Arp, Icmp6, Ipv6Icmp, L2Destination,
    arp::Operation,
    ethernet,
    nd::{Advertisement, Solicitation},
};

use super::{At, answered_vipa};
use crate::{TurnContext, batch::Verdict};

/// Answers who asks for an address of ours, and tells control who has said where they are: whoever spoke to us, the
/// targets whatever they say, and other stations that say that they have an owned VIPA. `None`: it is not about us.
#[inline(never)]
pub(super) fn arp(
    context: &TurnContext<'_>,
    at: At<'_>,
    l2_destination: L2Destination,
    message: &Arp,
) -> Option<Verdict> {
    let ours = message.target == at.route.address || answered_vipa(context, message.target.into());
    let heard = message.neighbour().map(|(address, mac)| (IpAddr::V4(address), mac));
    let told = tell(context, at, ours || l2_destination == L2Destination::Ours, heard);
    if ours && message.operation == Operation::Request && !message.is_announcement() {
        Some(Verdict::Answer(LocalReply::Arp))
    } else {
        told.then(|| punted(at))
    }
}

/// The same for IPv6. `None`: it is not about us, or no neighbour discovery.
pub(super) fn discovery(context: &TurnContext<'_>, at: At<'_>, frame: &[u8], icmp: &Ipv6Icmp) -> Option<Verdict> {
    match icmp.message {
        Icmp6::Solicitation(Solicitation { target, source_mac }) => {
            let wanted = IpAddr::V6(target.into());
            let ours = context.routes.is_own(wanted) || answered_vipa(context, wanted);
            // From the unspecified address a station asks whether the address is free for itself (RFC 4862 §5.4.2).
            let heard = if icmp.source == 0 {
                claim(context, wanted, ethernet::source(frame))
            } else {
                let asker = IpAddr::V6(icmp.source.into());
                source_mac.map(|mac| (asker, mac)).or_else(|| claim(context, asker, ethernet::source(frame)))
            };
            let told = tell(context, at, ours, heard);
            if ours { Some(Verdict::Answer(LocalReply::Neighbour)) } else { told.then(|| punted(at)) }
        }
        Icmp6::Advertisement(Advertisement { target, mac, .. }) => {
            let address = IpAddr::V6(target.into());
            let heard = mac.map(|mac| (address, mac)).or_else(|| claim(context, address, ethernet::source(frame)));
            tell(context, at, true, heard).then(|| punted(at))
        }
        _ => None,
    }
}

/// Tells control where a neighbour is, if it may want to know; whether it was told.
fn tell(context: &TurnContext<'_>, at: At<'_>, to_us: bool, heard: Option<(IpAddr, [u8; 6])>) -> bool {
    let Some((address, mac)) = heard else { return false };
    let (port, mac) = (at.port, Mac(mac));
    let note = if is_conflict(context, address, mac) {
        Note::Conflict { port, vipa: address, mac }
    } else if to_us || context.routes.is_target(address) {
        Note::Neighbour { port, address, mac }
    } else {
        return false;
    };
    // A full box counts what it refuses; the neighbour will be asked again.
    context.shared.notes.try_send(note).is_ok()
}

/// Another station that says nothing of its MAC is known by its frame's; of interest if `address` is an owned VIPA.
fn claim(context: &TurnContext<'_>, address: IpAddr, source: Option<[u8; 6]>) -> Option<(IpAddr, [u8; 6])> {
    let mac = source.filter(|mac| is_conflict(context, address, Mac(*mac)))?;
    Some((address, mac))
}

/// Whether another station says that it has a VIPA that this router owns. This router's own frames may come back to it by another
/// port, or from a switch.
fn is_conflict(context: &TurnContext<'_>, address: IpAddr, mac: Mac) -> bool {
    answered_vipa(context, address) && context.routes.ports.iter().all(|port| port.mac != mac)
}

/// Told to control; the kernel behind the port has neighbours of its own to find.
fn punted(at: At<'_>) -> Verdict {
    at.route.kernel.map_or(Verdict::Done(Fate::Punt), Verdict::ToKernel)
}
