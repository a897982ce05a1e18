//! Misplaced VIPAs: on an interface where this host answers ARP and neighbour discovery for them, so that all packets
//! of their clients come here past the routers.

use std::{fmt, fs, net::IpAddr};

use rtnetlink::{Error, Handle};
use vipa_protocol::CheckResult;

use crate::{checks::shortened, netlink::answering_interface};

/// With this value and above the kernel answers ARP for no address (ip-sysctl).
const ANSWERS_NOBODY: u32 = 8;
/// Misplaced VIPAs that are looked for and named.
const NAMED: usize = 8;

/// A VIPA and the interface that it should not be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) vipa: IpAddr,
    pub(crate) interface: String,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vipa, interface } = self;
        write!(
            f,
            "{vipa} is on {interface}, where this host answers for it: take it away (ip address del {vipa} dev {interface})"
        )
    }
}

/// The misplaced VIPAs that were found and logged.
#[derive(Debug, Default)]
pub(crate) struct MisplacedList(Vec<Misplaced>);

impl MisplacedList {
    /// Applies the result of a check; new ones and the end are logged.
    pub(crate) fn set(&mut self, found: Vec<Misplaced>) {
        for new in found.iter().filter(|new| !self.0.contains(new)) {
            tracing::error!("{new}; before that this host gets no new connections");
        }
        if found.is_empty() && !self.0.is_empty() {
            tracing::info!("no VIPA is where this host answers for it any more");
        }
        self.0 = found;
    }

    pub(crate) fn all(&self) -> &[Misplaced] {
        &self.0
    }
}

/// Those of these addresses that do harm, by the numbers of their interfaces.
pub(crate) async fn find(handle: &Handle, addresses: Vec<(u32, IpAddr)>) -> Result<Vec<Misplaced>, Error> {
    let mut found = Vec::new();
    for (index, vipa) in addresses.into_iter().take(NAMED) {
        if let Some(interface) = answering_interface(handle, index).await?
            && !(vipa.is_ipv4() && answers_nobody(&interface))
        {
            found.push(Misplaced { vipa, interface });
        }
    }
    Ok(found)
}

fn answers_nobody(interface: &str) -> bool {
    let setting =
        |of: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/arp_ignore")).ok()?.trim().parse().ok();
    let settings: Vec<u32> = ["all", interface].into_iter().filter_map(setting).collect();
    settings.into_iter().max() >= Some(ANSWERS_NOBODY)
}

/// The check that routers receive: it fails as long as there are misplaced VIPAs.
pub(crate) fn check(misplaced: &[Misplaced]) -> Option<CheckResult> {
    let detail = shortened(&misplaced.first()?.to_string());
    Some(CheckResult { name: "vipa-address".into(), port: None, passing: false, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_told_which_vipa_is_where_and_what_to_do() {
        assert_eq!(check(&[]), None);
        let there = Misplaced { vipa: "192.0.2.10".parse().unwrap(), interface: "eth0".into() };
        let check = check(&[there]).unwrap();
        assert!(!check.passing && check.port.is_none());
        assert_eq!(
            check.detail,
            "192.0.2.10 is on eth0, where this host answers for it: take it away (ip address del 192.0.2.10 dev eth0)"
        );
    }
}
