//! The Ethernet address of the interface that holds this target's address, followed as it changes.
//!
//! Routers receive it, so that no forged ARP or neighbour discovery diverts this target's packets, and so that a
//! replaced network card is known at once. The kernel reports changes of interfaces and addresses (rtnetlink's groups).
//! A report may get lost, so the interfaces are also checked at intervals.

use std::{net::IpAddr, time::Duration};

use anyhow::Context;
use futures::{FutureExt, StreamExt};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkLayerType},
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use vipa_model::Mac;

use crate::netlink::{addresses_of, all_addresses, link_by_index};

const GROUPS: [MulticastGroup; 3] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
/// After a report of a change, further ones are waited for this long, so that all are handled together.
const GATHER: Duration = Duration::from_millis(10);
/// Between two checks without a report of a change.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after a failure of netlink.
const RETRY: Duration = Duration::from_secs(1);

/// The interface that holds the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    index: u32,
    /// `None`: it is no Ethernet interface.
    mac: Option<Mac>,
}

/// Sends the Ethernet address of the interface that holds `address`, whenever it changes, until there is no receiver.
pub(crate) async fn follow(address: IpAddr, told: watch::Sender<Option<Mac>>) {
    let mut before = None;
    while !told.is_closed() {
        let Err(error) = follow_on_one_socket(address, &told).await;
        let text = error.to_string();
        if before.as_ref() != Some(&text) {
            tracing::error!("cannot follow the Ethernet address of {address}: {text}");
        }
        before = Some(text);
        sleep(RETRY).await;
    }
}

async fn follow_on_one_socket(
    address: IpAddr,
    told: &watch::Sender<Option<Mac>>,
) -> anyhow::Result<std::convert::Infallible> {
    let (connection, handle, mut news) = new_multicast_connection(&GROUPS).context("cannot open a netlink socket")?;
    // Ends with this function.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut holder: Option<Holder> = None;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            message = news.next() => {
                let (message, _) = message.context("the connection to the kernel's netlink has ended")?;
                if !concerns(&message, address, holder) {
                    continue;
                }
                sleep(GATHER).await;
                while let Some(Some(_)) = news.next().now_or_never() {}
            }
        }
        holder = find(&handle, address, holder.map(|holder| holder.index)).await?;
        let mac = holder.and_then(|holder| holder.mac);
        told.send_if_modified(|before| std::mem::replace(before, mac) != mac);
    }
}

/// Whether the message may be about the interface that holds the address.
fn concerns(message: &NetlinkMessage<RouteNetlinkMessage>, address: IpAddr, holder: Option<Holder>) -> bool {
    let is_holder = |index| holder.is_none_or(|holder| holder.index == index);
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
            is_holder(link.header.index)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(of) | RouteNetlinkMessage::DelAddress(of)) => {
            is_of(of, address)
        }
        NetlinkPayload::InnerMessage(_) => false,
        // The kernel has lost reports of changes.
        _ => true,
    }
}

fn is_of(message: &AddressMessage, address: IpAddr) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Local(named) | AddressAttribute::Address(named) => *named == address,
        _ => false,
    })
}

/// The interface that holds the address; most likely the one that held it before.
async fn find(handle: &Handle, address: IpAddr, before: Option<u32>) -> Result<Option<Holder>, rtnetlink::Error> {
    let index = match before {
        Some(index) if addresses_of(handle, index).await.is_ok_and(|here| here.contains_key(&address)) => Some(index),
        _ => all_addresses(handle).await?.into_iter().find(|(_, named)| *named == address).map(|(index, _)| index),
    };
    let Some(index) = index else { return Ok(None) };
    let Some(link) = link_by_index(handle, index).await? else { return Ok(None) };
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    Ok(Some(Holder { index, mac: mac.filter(|mac| is_ethernet && mac.is_unicast()) }))
}
