//! Offloads of interfaces whose frames a port reads: what the kernel has left for a card to finish, nobody finishes there.

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures::TryStreamExt;
use vipa_model::config::Config;

use crate::{Diagnosis, Root, kernel::shared_interface};

/// They join segments to frames that are longer than a port takes.
const JOINING: [&str; 3] = ["rx-gro", "rx-gro-hw", "rx-lro"];
/// They leave checksums, or the cutting of long segments, to a card: of the other end of a veth, whose frames come as they were sent.
const UNFINISHED: [&str; 3] = ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-tcp-segmentation"];

pub(crate) fn check(config: &Config) -> Vec<Diagnosis> {
    let interfaces: Vec<&str> = config.ports.iter().filter_map(|port| shared_interface(&port.device)).collect();
    if interfaces.is_empty() {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let root = Root::default();
    interfaces
        .iter()
        .map(|interface| {
            let joining = runtime.block_on(features(interface, &JOINING));
            let peer = veth_peer(&root, interface);
            let unfinished =
                peer.as_deref().map(|peer| runtime.block_on(features(peer, &UNFINISHED)).unwrap_or_default());
            judge(interface, joining.as_deref(), peer.as_deref().zip(unfinished.as_deref()))
        })
        .collect()
}

fn judge(interface: &str, joining: Option<&[&str]>, peer: Option<(&str, &[&str])>) -> Diagnosis {
    let subject = format!("offloads of {interface}");
    match (joining, peer) {
        (None, _) => Diagnosis::warning(subject, "the kernel does not tell them; the interface may be missing"),
        (Some(on), _) if !on.is_empty() => {
            let text = format!(
                "{} joins segments to frames that no port takes, and connections hang: ethtool -K {interface} gro off lro off",
                on.join(", ")
            );
            Diagnosis::harm(subject, text)
        }
        (_, Some((peer, on))) if !on.is_empty() => {
            let text = format!(
                "its other end {peer} sends frames with unfinished checksums ({}), and targets drop them: ethtool -K {peer} tx off tso off \
                 gso off",
                on.join(", ")
            );
            Diagnosis::harm(subject, text)
        }
        _ => Diagnosis::ok(subject, "frames come whole and with their checksums"),
    }
}

/// The other end of a veth, where it is in this network namespace.
fn veth_peer(root: &Root, interface: &str) -> Option<String> {
    let of = |name: &str, what: &str| root.number(&format!("sys/class/net/{name}/{what}"));
    let (index, peer) = (of(interface, "ifindex")?, of(interface, "iflink")?);
    // A VLAN's link is the interface beneath it, whose link is itself.
    let is_peer = |name: &String| of(name, "ifindex") == Some(peer) && of(name, "iflink") == Some(index);
    if index == peer { None } else { root.names("sys/class/net").into_iter().find(is_peer) }
}

/// Those of these features that are on; `None`: the kernel does not tell.
async fn features(interface: &str, wanted: &[&'static str]) -> Option<Vec<&'static str>> {
    let (connection, mut handle, _) = ethtool::new_connection().ok()?;
    let connection = tokio::spawn(connection);
    let mut on = None;
    let mut answers = handle.feature().get(Some(interface)).execute().await.ok()?;
    while let Ok(Some(answer)) = answers.try_next().await {
        for attribute in answer.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                let is_on = |name: &&str| bits.iter().any(|bit| bit.name == *name && bit.value);
                on.get_or_insert_with(Vec::new).extend(wanted.iter().copied().filter(is_on));
            }
        }
    }
    connection.abort();
    on
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{root_with, said};

    #[test]
    fn what_joins_segments_and_what_leaves_checksums_unfinished_is_told_with_the_command() {
        let of =
            |joining: &[&str], peer: Option<(&str, &[&str])>| said(&[judge("eth0", Some(joining), peer)]).remove(0);
        assert_eq!(of(&[], None), "ok       offloads of eth0: frames come whole and with their checksums");
        assert!(of(&["rx-gro"], None).ends_with(
            "rx-gro joins segments to frames that no port takes, and connections hang: ethtool -K eth0 gro off lro off"
        ));
        assert!(
            of(&[], Some(("veth1", &["tx-checksum-ip-generic"]))).ends_with("ethtool -K veth1 tx off tso off gso off")
        );
    }

    #[test]
    fn the_other_end_of_a_veth_is_found_and_a_vlan_has_none() {
        let root = root_with(&[
            ("sys/class/net/a/ifindex", "3"),
            ("sys/class/net/a/iflink", "4"),
            ("sys/class/net/b/ifindex", "4"),
            ("sys/class/net/b/iflink", "3"),
            ("sys/class/net/eth0/ifindex", "2"),
            ("sys/class/net/eth0/iflink", "2"),
            ("sys/class/net/eth0.5/ifindex", "5"),
            ("sys/class/net/eth0.5/iflink", "2"),
        ]);
        assert_eq!(veth_peer(&root, "a").as_deref(), Some("b"));
        assert_eq!((veth_peer(&root, "eth0"), veth_peer(&root, "eth0.5")), (None, None));
    }

    #[test]
    fn the_kernel_tells_the_features_of_the_loopback_interface() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Where this kernel has no ethtool netlink (before 5.6) there is nothing to hold the reader to.
        if let Some(on) = runtime.block_on(features("lo", &["tx-checksum-ip-generic"])) {
            assert_eq!(on, ["tx-checksum-ip-generic"]);
        }
        assert_eq!(runtime.block_on(features("no-such-if", &JOINING)), None);
    }
}
