//! Renewal of certificates without a restart: when the files change and match each other, new links use them.
//!
//! Live links stay, except for those whose certificate no authority of the new files has signed. Files that do not
//! match each other, for example while only one of them is written yet, change nothing; if they still do not match at
//! the second check, that is logged once.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig};

use crate::{
    expiry::{CertificateInfo, Expiry, expiry},
    identity::{Identity, IdentityError},
    registry::Registry,
};

/// A certificate that is not valid is told of again after this long.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two links that are closed because their authority is trusted no more.
const BETWEEN_CUTS: Duration = Duration::from_secs(1);
/// First packets waiting to be handled; more are not read, as if the network had lost them.
const WAITING_HANDSHAKES: usize = 256;
/// Bytes that may follow one of them while it waits, and all of them.
const WAITING_BYTES: u64 = 16 << 10;
const WAITING_BYTES_TOTAL: u64 = 1 << 20;

/// The certificate and authorities for new links.
#[derive(Clone)]
pub(crate) struct Credentials {
    transport: Arc<TransportConfig>,
    client: Arc<Mutex<ClientConfig>>,
}

impl Credentials {
    pub(crate) fn new(identity: &Identity, transport: Arc<TransportConfig>) -> Self {
        let client = Arc::new(Mutex::new(client(identity, &transport)));
        Self { transport, client }
    }

    /// For links that this node dials.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For links that other nodes dial.
    pub(crate) fn server(&self, identity: &Identity) -> ServerConfig {
        let mut server = ServerConfig::with_crypto(Arc::clone(&identity.server) as _);
        server
            .transport_config(Arc::clone(&self.transport))
            .max_incoming(WAITING_HANDSHAKES)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(WAITING_BYTES_TOTAL);
        server
    }

    fn replace(&self, identity: &Identity, endpoint: &Endpoint, listening: Listening) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client(identity, &self.transport);
        if listening == Listening::Yes {
            endpoint.set_server_config(Some(self.server(identity)));
        }
    }
}

pub(crate) fn client(identity: &Identity, transport: &Arc<TransportConfig>) -> ClientConfig {
    let mut client = ClientConfig::new(Arc::clone(&identity.client) as _);
    client.transport_config(Arc::clone(transport));
    client
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    Yes,
    No,
}

/// The files of an identity, and their stamps just before they were read.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    read: Stamp,
}

/// Distinguishes one content of the files from another without reading them.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl Files {
    pub(crate) fn new(ca: &Path, certificate: &Path, key: &Path) -> Self {
        let mut files = Self { ca: ca.into(), certificate: certificate.into(), key: key.into(), read: [None; 3] };
        files.read = files.stamp();
        files
    }

    fn stamp(&self) -> Stamp {
        [&self.ca, &self.certificate, &self.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
        })
    }

    fn load(&self) -> Result<Identity, IdentityError> {
        Identity::load(&self.ca, &self.certificate, &self.key)
    }
}

/// Checks the files every `pace`, for ever.
pub(crate) async fn watch(
    files: Files,
    credentials: Credentials,
    endpoint: Endpoint,
    listening: Listening,
    registry: Arc<Registry>,
    pace: Duration,
) {
    let hello = registry.hello();
    let mut warnings = Warnings::default();
    let mut current = files.read;
    let mut last_problem = String::new();
    let mut cutting = tokio::spawn(async {});
    loop {
        warnings.say(&registry.certificates(), SystemTime::now());
        tokio::time::sleep(pace).await;
        let (looked, before) = (files.clone(), current);
        // The disk may be slow, and beats must not wait for it.
        let look = tokio::task::spawn_blocking(move || {
            let stamp = looked.stamp();
            (stamp != before).then(|| (stamp, looked.load()))
        });
        let Ok(Some((stamp, loaded))) = look.await else { continue };
        match loaded {
            Ok(identity) if identity.node != hello.node => {
                warn_of_repeated(
                    &mut last_problem,
                    &format!("the new certificate names {}, not {}", identity.node, hello.node),
                );
            }
            Ok(identity) => {
                if let Err(error) = identity.roles.check(&identity.node, &hello.role) {
                    warn_of_repeated(&mut last_problem, &error.to_string());
                    continue;
                }
                credentials.replace(&identity, &endpoint, listening);
                registry.set_certificates(&identity);
                current = stamp;
                last_problem.clear();
                cutting.abort();
                let registry = Arc::clone(&registry);
                cutting = tokio::spawn(async move { cut_untrusted(&registry, &identity).await });
                tracing::info!("the certificate has been renewed: new links use it");
            }
            Err(error) => warn_of_repeated(&mut last_problem, &error.to_string()),
        }
    }
}

/// What has been said of each certificate's dates.
#[derive(Default)]
struct Warnings(HashMap<String, (Stage, SystemTime)>);

/// Each is said once, and one after the last warning once a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Days(u16),
    Over,
    Early,
}

impl Warnings {
    fn say(&mut self, certificates: &[CertificateInfo], now: SystemTime) {
        for certificate in certificates {
            if let Some((stage, what)) = self.due(certificate, now) {
                match stage {
                    Stage::Days(days) if days > 1 => tracing::warn!("{what}"),
                    _ => tracing::error!("{what}"),
                }
            }
        }
        self.0.retain(|serial, _| certificates.iter().any(|certificate| certificate.serial == *serial));
    }

    fn due(&mut self, certificate: &CertificateInfo, now: SystemTime) -> Option<(Stage, String)> {
        let stage = match expiry(certificate, now) {
            Expiry::Valid { .. } => {
                self.0.remove(&certificate.serial);
                return None;
            }
            Expiry::ExpiresSoon { days, .. } => Stage::Days(days),
            Expiry::Expired { .. } => Stage::Over,
            Expiry::NotYetValid { .. } => Stage::Early,
        };
        let is_said = self.0.get(&certificate.serial).is_some_and(|(before, at)| {
            *before == stage
                && (matches!(stage, Stage::Days(_)) || now.duration_since(*at).is_ok_and(|since| since < WARN_AGAIN))
        });
        if is_said {
            return None;
        }
        self.0.insert(certificate.serial.clone(), (stage, now));
        Some((stage, certificate.warning(now)?))
    }
}

/// Closes the links whose certificate no authority of this identity has signed, one after the other: a peer that has
/// been renewed meanwhile is linked again before the next link is closed, so that an owner keeps a majority of its
/// voters.
async fn cut_untrusted(registry: &Registry, identity: &Identity) {
    while registry.cut_untrusted(identity) {
        tokio::time::sleep(BETWEEN_CUTS).await;
    }
}

/// Logs what the second check finds again: the first may have met files that were half written.
fn warn_of_repeated(last_problem: &mut String, why: &str) {
    let again = format!("again: {why}");
    if last_problem == why {
        tracing::warn!(%why, "the certificate's files have changed and cannot be used; the old one stays in use");
        *last_problem = again;
    } else if *last_problem != again {
        *last_problem = why.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_said_once_and_an_expired_certificate_once_a_day() {
        const DAY: i64 = 24 * 60 * 60;
        let certificate = CertificateInfo {
            subject: "r1".into(),
            issuer: "ca".into(),
            serial: "01".into(),
            is_authority: false,
            node: "r1".parse().ok(),
            roles: crate::CertifiedRoles::router(),
            not_before: 0,
            not_after: 40 * DAY,
        };
        let mut warnings = Warnings::default();
        let mut said = Vec::new();
        for hour in 0..24 * 43 {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3_600);
            said.extend(warnings.due(&certificate, now).map(|(stage, _)| (hour, stage)));
        }
        let days = Stage::Days;
        let expected = [(10 * 24, days(30)), (26 * 24, days(14)), (33 * 24, days(7)), (39 * 24, days(1))];
        let over = [40 * 24 + 1, 41 * 24 + 1, 42 * 24 + 1].map(|hour| (hour, Stage::Over));
        assert_eq!(said, [&expected[..], &over].concat());
    }
}
