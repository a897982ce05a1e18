//! The interfaces that tunnels arrive at, and what hangs on an interface's way in.

use std::{collections::BTreeSet, fs, net::IpAddr};

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        link::{LinkAttribute, LinkLayerType},
        tc::{TcAttribute, TcHandle as QdiscHandle, TcMessage},
    },
};

use super::DecapError;
use crate::address::{index_of, interface_of};

/// What a tunnel adds at most: IPv6, UDP and GUE.
const MOST_OVERHEAD: u32 = 52;
/// What every IPv6 link carries (RFC 8200 §5).
const LEAST_MTU: u32 = 1_280;

/// Offloads that make one packet of several, whichever tunnel they are in.
const MERGING: [&str; 3] = ["rx-lro", "rx-gro-list", "rx-udp-gro-forwarding"];

/// What may keep packets from getting through on an interface.
pub(super) async fn remarks(interface: &str, link: &Link) -> Vec<String> {
    let mut remarks = Vec::new();
    if !link.is_ethernet {
        remarks.push(DecapError::NoEthernet(interface.into()).to_string());
    }
    let inside = link.mtu.saturating_sub(MOST_OVERHEAD);
    let least = if inside < LEAST_MTU { "; IPv6 needs 1280: raise the MTU" } else { "" };
    remarks.push(format!("{interface} has MTU {}: {inside} bytes fit into the longest headers{least}", link.mtu));
    // The larger of both counts (ip-sysctl of the kernel's documentation).
    let rp_filter = ["all", interface].map(|which| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    });
    if rp_filter.into_iter().max() == Some(1) {
        remarks.push(format!(
            "{interface} has rp_filter 1: clients that are reached by another interface are not heard in tunnels; 2 hears them"
        ));
    }
    for offload in merging(interface).await {
        remarks.push(format!(
            "{interface} has {offload} on, which makes one packet of several before they are unwrapped: \
             turn it off with ethtool -K {interface} {offload} off"
        ));
    }
    remarks
}

/// The offloads of this interface that are on and merge what is in tunnels.
async fn merging(interface: &str) -> Vec<&'static str> {
    let Ok((connection, mut handle, _)) = ethtool::new_connection() else { return Vec::new() };
    let connection = tokio::spawn(connection);
    let mut on = Vec::new();
    if let Ok(mut features) = handle.feature().get(Some(interface)).execute().await {
        while let Ok(Some(features)) = features.try_next().await {
            for attribute in features.payload.nlas {
                if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                    let is_on = |name: &&str| bits.iter().any(|bit| bit.name == *name && bit.value);
                    on.extend(MERGING.into_iter().filter(is_on));
                }
            }
        }
    }
    connection.abort();
    on
}

/// What there is to know of an interface.
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) is_ethernet: bool,
    mtu: u32,
}

impl Link {
    pub(super) async fn of(handle: &Handle, interface: &str) -> Result<Option<Self>, Box<rtnetlink::Error>> {
        let Some(index) = index_of(handle, interface).await else { return Ok(None) };
        let mut links = handle.link().get().match_index(index).execute();
        let Some(link) = links.try_next().await? else { return Ok(None) };
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
