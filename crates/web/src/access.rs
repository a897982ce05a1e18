//! Who a client is, and what it may do.

use std::{ffi::CString, fmt, net::IpAddr, time::Duration};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use rustls_pki_types::CertificateDer;
use vipa_model::{
    config::{ApiRoles, Config, Pki},
    printable,
};
use vipa_protocol::Operator;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longest name of a client that is shown, characters.
const SHOWN_NAME: usize = 64;
/// The same within an order, characters.
const OPERATOR_NAME: usize = 40;
/// A database of users that answers later does not count.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiRole {
    /// See everything that changes nothing.
    Read,
    /// Give orders, too.
    Operate,
}

impl ApiRole {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// What a client has proved to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Identity {
    /// A user of this host.
    User { uid: u32, gid: u32 },
    /// The holder of a certificate.
    Certificate { name: String, serial: String },
    /// Some process of this host.
    Anybody,
}

/// A client, for as long as its connection lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) identity: Identity,
    /// Where it comes from; `None`: a Unix socket.
    pub(crate) address: Option<IpAddr>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Identity::User { uid, gid: _ } => write!(f, "uid {uid}"),
            Identity::Certificate { name, serial } => {
                write!(f, "{} (certificate {serial})", printable(name, SHOWN_NAME))
            }
            Identity::Anybody => f.write_str("a process of this host"),
        }
    }
}

impl Client {
    /// Where it comes from, in words.
    pub(crate) fn place(&self) -> String {
        self.address.map_or_else(|| "the Unix socket".into(), |address| address.to_string())
    }

    /// As decisions and events name it.
    pub(crate) fn operator(&self) -> Operator {
        match &self.identity {
            Identity::User { uid, gid: _ } => Operator { uid: *uid, name: None },
            Identity::Certificate { name, .. } => {
                let name = format!("{} by the API", printable(name, OPERATOR_NAME));
                Operator { uid: Uid::effective().as_raw(), name: Some(name) }
            }
            Identity::Anybody => Operator::default(),
        }
    }

    /// What it may do now; `None`: nothing.
    pub(crate) async fn role(&self, config: &Config) -> Option<ApiRole> {
        let roles = &config.api.as_ref()?.roles;
        match &self.identity {
            Identity::Certificate { name, serial } => certified(name, serial, roles, &config.pki),
            Identity::Anybody => Some(ApiRole::Read),
            Identity::User { uid, gid } => {
                if *uid == 0 || *uid == Uid::effective().as_raw() {
                    return Some(ApiRole::Operate);
                }
                let (uid, gid, roles) = (*uid, *gid, roles.clone());
                // The databases of users may be elsewhere, and slow.
                let looking = tokio::task::spawn_blocking(move || {
                    let is_member =
                        |group: &Option<String>| group.as_ref().is_some_and(|group| is_member(uid, gid, group));
                    let read = || is_member(&roles.read_group).then_some(ApiRole::Read);
                    if is_member(&roles.operate_group) { Some(ApiRole::Operate) } else { read() }
                });
                tokio::time::timeout(LOOKUP_LIMIT, looking).await.ok()?.ok()?
            }
        }
    }
}

fn certified(name: &str, serial: &str, roles: &ApiRoles, pki: &Pki) -> Option<ApiRole> {
    let Pki { revoked_nodes, revoked_serials, .. } = pki;
    let is_revoked = revoked_nodes.iter().any(|node| node.as_str() == name)
        || revoked_serials.iter().any(|revoked| is_same_serial(revoked, serial));
    let has = |names: &[String]| names.iter().any(|known| known == name);
    match () {
        () if is_revoked => None,
        () if has(&roles.operate) => Some(ApiRole::Operate),
        () if has(&roles.read) => Some(ApiRole::Read),
        () => None,
    }
}

/// Programs differ in whether they print a leading zero byte.
fn is_same_serial(one: &str, other: &str) -> bool {
    one.trim_start_matches('0') == other.trim_start_matches('0')
}

/// Whether the group is the user's first, or one that the host's databases give it.
fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    if group.gid == Gid::from_raw(gid) {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group.gid))
}

/// The name and serial number of a client's certificate: its only DNS name or, where it has none, its common name.
pub(crate) fn certificate(der: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let extension = parsed.subject_alternative_name().ok()?;
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let name = match (dns.next(), dns.next()) {
        (Some(name), None) => name.to_owned(),
        // Which of them it is cannot be told.
        (Some(_), Some(_)) => return None,
        (None, _) => {
            let mut common = parsed.subject().iter_common_name();
            match (common.next(), common.next()) {
                (Some(name), None) => name.as_str().ok()?.to_owned(),
                _ => return None,
            }
        }
    };
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Identity::Certificate { name, serial })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn client(identity: Identity) -> Client {
        Client { identity, address: None }
    }

    fn holder(name: &str) -> Client {
        client(Identity::Certificate { name: name.into(), serial: "0a1b".into() })
    }

    /// A configuration with these lines in `[api]`, and in `[pki]`.
    fn config(api: &str, pki: &str) -> Config {
        let text = format!(
            "[node]\nname = \"r1\"\nlisten = \"10.0.0.1:7400\"\n[pki]\nca = \"ca.pem\"\ncertificate = \"r1.pem\"\nkey = \"r1.key\"\n{pki}\n\
             [cluster]\nname = \"c\"\nkey = \"000102030405060708090a0b0c0d0e0f\"\nvoters = [\"r1\", \"r2\", \"t1\"]\n\
             [cluster.routers]\nr1 = \"10.0.0.1:7400\"\n[[port]]\nname = \"p0\"\ndevice = \"net_tap0\"\naddress = \"10.0.0.2/24\"\n\
             [api]\n{api}\n"
        );
        Config::parse("r1.toml", &text).unwrap()
    }

    const NAMES: &str = "listen = \"10.0.0.1:9780\"\nread = [\"alice\"]\noperate = [\"bob\"]";

    #[tokio::test]
    async fn a_certificate_has_the_role_that_names_it_unless_it_is_revoked() {
        let given = config(NAMES, "");
        assert_eq!(holder("alice").role(&given).await, Some(ApiRole::Read));
        assert_eq!(holder("bob").role(&given).await, Some(ApiRole::Operate));
        assert_eq!(holder("r1").role(&given).await, None, "a node's certificate alone gives nothing");
        assert_eq!(holder("bob").role(&config(NAMES, "revoked_serials = [\"a1b\"]")).await, None);
        let revoked = config(NAMES, "revoked_nodes = [\"bob\"]");
        assert_eq!(holder("bob").role(&revoked).await, None);
        assert_eq!(holder("alice").role(&revoked).await, Some(ApiRole::Read));
    }

    #[tokio::test]
    async fn a_user_has_the_role_of_its_groups() {
        let with = |groups: &str| config(&format!("listen = \"unix:/run/vipad/r1/api.sock\"\n{groups}"), "");
        let root = client(Identity::User { uid: 0, gid: 0 });
        assert_eq!(root.role(&with("")).await, Some(ApiRole::Operate));
        // Debian has this user and this group everywhere, and no member of the group besides.
        let daemon = client(Identity::User { uid: 1, gid: 1 });
        assert_eq!(daemon.role(&with("")).await, None);
        assert_eq!(daemon.role(&with("read_group = \"daemon\"")).await, Some(ApiRole::Read));
        let other = client(Identity::User { uid: 2, gid: 2 });
        assert_eq!(other.role(&with("read_group = \"daemon\"")).await, None);
        let both = "read_group = \"daemon\"\noperate_group = ";
        assert_eq!(daemon.role(&with(&format!("{both}\"daemon\""))).await, Some(ApiRole::Operate));
        assert_eq!(daemon.role(&with(&format!("{both}\"no-such-group\""))).await, Some(ApiRole::Read));
    }

    fn made(common: Option<&str>, dns: &[&str]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        match certificate(made.der())? {
            Identity::Certificate { name, serial } => {
                assert!(!serial.is_empty());
                Some(name)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_names_its_holder_once_or_nobody() {
        assert_eq!(made(Some("somebody"), &["alice"]), Some("alice".into()), "the DNS name comes first");
        assert_eq!(made(Some("Alice Example"), &[]), Some("Alice Example".into()));
        assert_eq!(made(Some("alice"), &["alice", "bob"]), None);
        assert_eq!(made(None, &[]), None);
        assert_eq!(certificate(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
