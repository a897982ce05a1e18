//! The interfaces at which tunnels arrive, and the filters on their ingress.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkLayerType},
        route::{RouteAttribute, RouteMessage, RouteMetric, RouteType},
        tc::{TcAttribute, TcHandle as QdiscHandle, TcMessage},
    },
};

use super::{DecapError, Means};
use crate::netlink::{interface_of, link_by_name};

/// Bytes that a tunnel adds at most: IPv6, UDP and GUE.
const MOST_OVERHEAD: u32 = 52;
/// MTU that every IPv6 link has at least (RFC 8200 §5).
const LEAST_MTU: u32 = 1_280;
/// The largest packet that most clients' own links carry.
const CLIENTS_MTU: u32 = 1_500;
/// Headers of IP and TCP without options: a segment is smaller than its packet by this much.
const IPV4_AND_TCP: u32 = 40;
const IPV6_AND_TCP: u32 = 60;

/// Conditions that may keep packets from getting through on an interface, whichever means unwraps them.
pub(super) async fn remarks(interface: &str, link: &Link, means: Means, handle: &Handle) -> Vec<String> {
    let mut remarks = Vec::new();
    if !link.is_ethernet && means == Means::Bpf {
        remarks.push(DecapError::NoEthernet(interface.into()).to_string());
    }
    let inside = link.mtu.saturating_sub(MOST_OVERHEAD);
    let fits = format!("{interface} has MTU {}: {inside} bytes fit into the longest headers", link.mtu);
    if inside < LEAST_MTU {
        remarks.push(format!("{fits}; IPv6 needs 1280: raise the MTU"));
    } else if inside < CLIENTS_MTU && !are_told_of_less(inside, handle).await {
        let (ipv4, ipv6) = (inside - IPV4_AND_TCP, inside - IPV6_AND_TCP);
        remarks.push(format!(
            "{fits}; clients that send {CLIENTS_MTU} learn it from the routers, a packet late: MTU {} carries these whole, \
             advmss {ipv4} (IPv6: {ipv6}) of the route to the clients has them send less",
            CLIENTS_MTU + MOST_OVERHEAD
        ));
    } else {
        remarks.push(fits);
    }
    // The larger of both counts (ip-sysctl of the kernel's documentation).
    let rp_filter = ["all", interface].map(|which| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    });
    if rp_filter.into_iter().max() == Some(1) {
        let unheard = match means {
            Means::Bpf => "clients that are reached by another interface are not heard in tunnels",
            Means::Devices => "tunnels of routers that are reached by another interface are not heard",
        };
        remarks.push(format!("{interface} has rp_filter 1: {unheard}; 2 hears them"));
    }
    for offload in merging(interface, means.misses()).await {
        remarks.push(format!(
            "{interface} has {offload} on, which makes one packet of several before they are unwrapped: \
             turn it off with ethtool -K {interface} {offload} off"
        ));
    }
    remarks
}

impl Means {
    /// Offloads that merge packets which this means cannot separate again. The kernel's devices unwrap packets that the
    /// kernel itself has merged.
    const fn misses(self) -> &'static [&'static str] {
        match self {
            Self::Bpf => &["rx-lro", "rx-gro-list", "rx-udp-gro-forwarding"],
            Self::Devices => &["rx-lro"],
        }
    }
}

/// Whether this host's default routes advertise to clients segments that fit into `inside` bytes.
async fn are_told_of_less(inside: u32, handle: &Handle) -> bool {
    let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut is_told = false;
    for (request, headers) in [(ipv4, IPV4_AND_TCP), (ipv6, IPV6_AND_TCP)] {
        let routes: Result<Vec<RouteMessage>, _> = handle.route().get(request).execute().try_collect().await;
        for route in routes.unwrap_or_default().iter().filter(|route| leads_to_clients(route)) {
            match advmss(route) {
                Some(told) if told + headers <= inside => is_told = true,
                _ => return false,
            }
        }
    }
    is_told
}

/// A default route that leads to clients; routes that refuse, of which every host has one for IPv6, lead nowhere.
fn leads_to_clients(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn advmss(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Advmss(told) => Some(*told),
            _ => None,
        }),
        _ => None,
    })
}

/// Those of these offloads that are on at this interface.
async fn merging(interface: &str, offloads: &[&'static str]) -> Vec<&'static str> {
    let Ok((connection, mut handle, _)) = ethtool::new_connection() else { return Vec::new() };
    let connection = tokio::spawn(connection);
    let mut on = Vec::new();
    if let Ok(mut features) = handle.feature().get(Some(interface)).execute().await {
        while let Ok(Some(features)) = features.try_next().await {
            for attribute in features.payload.nlas {
                if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                    let is_on = |name: &&str| bits.iter().any(|bit| bit.name == *name && bit.value);
                    on.extend(offloads.iter().copied().filter(is_on));
                }
            }
        }
    }
    connection.abort();
    on
}

/// Properties of an interface.
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) is_ethernet: bool,
    mtu: u32,
}

impl Link {
    pub(super) async fn of(handle: &Handle, interface: &str) -> Result<Option<Self>, Box<rtnetlink::Error>> {
        let Some(link) = link_by_name(handle, interface).await? else { return Ok(None) };
        let index = link.header.index;
        let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(Some(Self { index, is_ethernet, mtu: mtu.unwrap_or_default() }))
    }
}

pub(super) async fn interfaces(configured: &[String], own: IpAddr, handle: &Handle) -> Result<Vec<String>, DecapError> {
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let found = interface_of(handle, own).await.map_err(Box::new)?;
    Ok(vec![found.ok_or(DecapError::NoInterface(own))?])
}

pub(super) enum Side {
    Ingress,
    Egress,
}

/// The priorities of the filters on an interface.
pub(super) async fn filters(handle: &Handle, index: u32, side: Side) -> Result<BTreeSet<u16>, rtnetlink::Error> {
    let request = handle.traffic_filter(index.cast_signed()).get();
    let request = match side {
        Side::Ingress => request.ingress(),
        Side::Egress => request.egress(),
    };
    let list: Vec<TcMessage> = request.execute().try_collect().await?;
    Ok(list.iter().filter_map(|filter| u16::try_from(filter.header.info >> 16).ok()).collect())
}

pub(super) async fn is_bare(handle: &Handle, index: u32) -> Result<bool, rtnetlink::Error> {
    Ok(filters(handle, index, Side::Ingress).await?.is_empty()
        && filters(handle, index, Side::Egress).await?.is_empty())
}

pub(super) async fn has_clsact(handle: &Handle, index: u32) -> Result<bool, rtnetlink::Error> {
    let qdiscs: Vec<TcMessage> = handle.qdisc().get().execute().try_collect().await?;
    let is_clsact = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
    let is_it = |qdisc: &TcMessage| qdisc.header.index == index.cast_signed() && qdisc.attributes.iter().any(is_clsact);
    Ok(qdiscs.iter().any(is_it))
}

pub(super) async fn remove_clsact(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let mut request = handle.qdisc().del(index.cast_signed());
    let header = &mut request.message_mut().header;
    (header.handle, header.parent) = (QdiscHandle { major: u16::MAX, minor: 0 }, QdiscHandle::CLSACT);
    request.execute().await
}
