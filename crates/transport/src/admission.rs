//! Admission: which certified nodes may link. Certificates do not state it, because it changes while certificates stay.

use std::{collections::BTreeSet, net::IpAddr};

use vipa_model::{
    NodeName,
    config::{Config, Pki},
};
use vipa_protocol::{Hello, Role};

use crate::{certificate::Certified, link::NoLink};

/// What this node's configuration states about other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The routers of the cluster. A router that is not among them is refused.
    pub routers: Vec<NodeName>,
    /// Addresses from which configured nodes link: the routers', and the candidates'.
    pub addresses: BTreeSet<IpAddr>,
    /// Nodes that may not link, whatever certificate they show.
    pub revoked_nodes: Vec<NodeName>,
    /// Serial numbers of certificates that are no longer accepted: hexadecimal digits in lower case.
    pub revoked_serials: Vec<String>,
}

impl Admission {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Pki { revoked_nodes, revoked_serials, .. } = config.pki.clone();
        let routers = config.cluster.routers.iter().map(|(name, _)| name.clone()).collect();
        let of_routers = config.cluster.routers.iter().map(|(_, address)| address.ip());
        let services = config.vipas.iter().flat_map(|vipa| vipa.services.iter().flatten());
        let addresses = of_routers.chain(services.flat_map(|service| service.candidates.iter().copied())).collect();
        Self { routers, addresses, revoked_nodes, revoked_serials }
    }

    /// Checks a peer's greeting against its certificate and this node's configuration.
    pub(crate) fn check(&self, certified: &Certified, hello: &Hello) -> Result<(), NoLink> {
        let Certified { node, roles, .. } = certified;
        self.check_certificate(certified)?;
        roles.check(node, &hello.role)?;
        if hello.role == Role::Router && !self.routers.contains(node) {
            return Err(NoLink::UnknownRouter(node.clone()));
        }
        Ok(())
    }

    /// Checks that the certificate has not been revoked.
    pub(crate) fn check_certificate(&self, certified: &Certified) -> Result<(), NoLink> {
        let Certified { node, serial, .. } = certified;
        if self.revoked_nodes.contains(node) {
            return Err(NoLink::RevokedNode(node.clone()));
        }
        if self.revoked_serials.iter().any(|revoked| is_same_number(revoked, serial)) {
            return Err(NoLink::RevokedSerial { node: node.clone(), serial: serial.clone() });
        }
        Ok(())
    }
}

/// Whether two serial numbers are equal; encodings differ in leading zeros.
fn is_same_number(one: &str, other: &str) -> bool {
    one.trim_start_matches('0') == other.trim_start_matches('0')
}
