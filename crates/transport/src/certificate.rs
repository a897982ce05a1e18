//! Contents of a certificate: the node's name, and the roles that the node may have.
//!
//! ```text
//! subjectAltName   DNS:t1                     the node's name, exactly one
//!                  URI:vipa://role/target     each role that the node may greet with
//!                  IP:10.77.0.31              of a target: each address that it may report for
//! ```
//! Other names are ignored, so that an organisation's own authority may add what it needs.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustls_pki_types::CertificateDer;
use vipa_model::NodeName;
use vipa_protocol::Role;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The URI of a router's role in a certificate.
pub(crate) const ROUTER_URI: &str = "vipa://role/router";
/// The URI of a target's role.
pub(crate) const TARGET_URI: &str = "vipa://role/target";
/// Addresses that one certificate may name.
pub(crate) const MAX_ADDRESSES: usize = 64;

/// The roles that a node may have, by its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertifiedRoles {
    pub router: bool,
    /// The addresses that the node may report for as a target; none: it is no target.
    pub addresses: Vec<IpAddr>,
}

/// Why a certificate does not allow a node's greeting. Each text names the command that issues the right one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    #[error(
        "the certificate of {0} names no role; issue a new one: `vipactl pki issue {0} --router` or \
         `vipactl pki issue {0} --target ADDRESS`"
    )]
    None(NodeName),
    #[error(
        "{node} is a router, and its certificate is not for one ({certified}); issue a new one: \
         `vipactl pki issue {node} --router`"
    )]
    Router { node: NodeName, certified: CertifiedRoles },
    #[error(
        "{node} is the target {address}, and its certificate is not for that ({certified}); issue a new one: \
         `vipactl pki issue {node} --target {address}`"
    )]
    Target { node: NodeName, address: IpAddr, certified: CertifiedRoles },
}

impl CertifiedRoles {
    #[must_use]
    pub fn router() -> Self {
        Self { router: true, addresses: Vec::new() }
    }

    #[must_use]
    pub fn target(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { router: false, addresses: addresses.into_iter().collect() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.router && self.addresses.is_empty()
    }

    /// Checks that `node` may greet with this role.
    pub(crate) fn check(&self, node: &NodeName, role: &Role) -> Result<(), RoleError> {
        if self.is_empty() {
            return Err(RoleError::None(node.clone()));
        }
        match *role {
            Role::Router if self.router => Ok(()),
            Role::Router => Err(RoleError::Router { node: node.clone(), certified: self.clone() }),
            Role::Target { address } if self.addresses.contains(&address) => Ok(()),
            Role::Target { address } => Err(RoleError::Target { node: node.clone(), address, certified: self.clone() }),
        }
    }
}

/// As in a sentence: "a router, the target 10.77.0.31".
impl fmt::Display for CertifiedRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let router = self.router.then(|| "a router".to_owned());
        let targets = self.addresses.iter().map(|address| format!("the target {address}"));
        let parts: Vec<String> = router.into_iter().chain(targets).collect();
        if parts.is_empty() { f.write_str("no role") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A certificate that has been parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) node: NodeName,
    pub(crate) roles: CertifiedRoles,
    /// As `openssl x509 -serial` prints it, in lower case.
    pub(crate) serial: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Certified {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it is no X.509 certificate")?;
        let names = parsed.subject_alternative_name().map_err(|_| "its names cannot be read")?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let (mut node, mut is_target) = (None, false);
        let mut roles = CertifiedRoles::default();
        for name in names {
            match name {
                GeneralName::DNSName(_) if node.is_some() => return Err("it has more than one DNS name"),
                GeneralName::DNSName(name) => {
                    let name: NodeName = name.parse().map_err(|_| "its DNS name is no node's name")?;
                    node = Some(name);
                }
                GeneralName::URI(ROUTER_URI) => roles.router = true,
                GeneralName::URI(TARGET_URI) => is_target = true,
                GeneralName::IPAddress(bytes) if roles.addresses.len() < MAX_ADDRESSES => {
                    roles.addresses.push(address(bytes).ok_or("one of its IP addresses has a wrong length")?);
                }
                _ => {}
            }
        }
        if !is_target {
            roles.addresses.clear();
        }
        let node = node.ok_or("it must have exactly one DNS name, the node's")?;
        let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { node, roles, serial, der: certificate.clone().into_owned() })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    fn roles(names: &[SanType]) -> CertifiedRoles {
        Certified::read(&certificate(names)).unwrap().roles
    }

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 31));
    const T1_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x31));

    #[test]
    fn a_certificate_says_whose_it_is_and_what_that_node_may_be() {
        assert_eq!(roles(&[dns("r1"), uri(ROUTER_URI)]), CertifiedRoles::router());
        let target = [dns("t1"), SanType::IpAddress(T1), uri(TARGET_URI), SanType::IpAddress(T1_IPV6)];
        assert_eq!(roles(&target), CertifiedRoles::target([T1, T1_IPV6]));
        let both = roles(&[dns("r1"), uri(ROUTER_URI), uri(TARGET_URI), SanType::IpAddress(T1)]);
        assert_eq!(both, CertifiedRoles { router: true, addresses: vec![T1] });
        assert_eq!(both.to_string(), "a router, the target 10.77.0.31");
    }

    #[test]
    fn addresses_alone_make_no_target_and_foreign_names_are_ignored() {
        assert!(roles(&[dns("t1"), SanType::IpAddress(T1)]).is_empty());
        assert!(roles(&[dns("t1"), uri("vipa://role/king"), uri("spiffe://example.org/t1")]).is_empty());
        assert!(roles(&[dns("t1"), uri(TARGET_URI)]).is_empty(), "a target without an address may report for nobody");
    }

    #[test]
    fn a_certificate_without_exactly_one_node_is_none() {
        assert!(Certified::read(&certificate(&[uri(ROUTER_URI)])).is_err());
        assert!(Certified::read(&certificate(&[dns("a"), dns("b"), uri(ROUTER_URI)])).is_err());
        assert!(Certified::read(&certificate(&[dns("A.b"), uri(ROUTER_URI)])).is_err());
        assert!(Certified::read(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }

    #[test]
    fn a_role_that_the_certificate_lacks_is_refused_with_the_command_that_issues_it() {
        let node: NodeName = "t1".parse().unwrap();
        let target = Role::Target { address: T1 };
        assert_eq!(CertifiedRoles::target([T1]).check(&node, &target), Ok(()));
        assert_eq!(CertifiedRoles::router().check(&node, &Role::Router), Ok(()));
        let said = |roles: &CertifiedRoles, role: &Role| roles.check(&node, role).unwrap_err().to_string();
        let text = said(&CertifiedRoles::default(), &target);
        assert!(text.contains("names no role") && text.contains("`vipactl pki issue t1 --router`"), "{text}");
        let text = said(&CertifiedRoles::target([T1]), &Role::Router);
        assert!(text.contains("the target 10.77.0.31") && text.contains("`vipactl pki issue t1 --router`"), "{text}");
        let text = said(&CertifiedRoles::target([T1_IPV6]), &target);
        assert!(text.contains("`vipactl pki issue t1 --target 10.77.0.31`"), "{text}");
    }
}
