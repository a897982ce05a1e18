//! When certificates expire, for those who watch over them.

use std::{path::Path, time::Duration};

use tokio::sync::watch;
use vipa_model::config::Pki;

use crate::CertificateInfo;

/// Between two looks at the files.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The ends of a node's certificates, in seconds since 1970 (RFC 5280 §4.1.2.5, notAfter). `None`: its file cannot be read now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// Of the node's own certificate.
    pub certificate: Option<i64>,
    /// Of the authority that expires first.
    pub authority: Option<i64>,
}

impl CertificateExpiry {
    /// Reads the PEM files of a node's authorities and of its certificate. It may block.
    #[must_use]
    pub fn read(ca: &Path, certificate: &Path) -> Self {
        Self { certificate: earliest(certificate), authority: earliest(ca) }
    }

    /// Reads them anew each minute, until nobody wants to know: certificates may be renewed while the program runs. Reading files may
    /// block, so a thread for that does it.
    pub async fn watch(pki: Pki, told: watch::Sender<Self>) {
        let mut pace = tokio::time::interval(READ_AGAIN);
        loop {
            pace.tick().await;
            let (ca, certificate) = (pki.ca.clone(), pki.certificate.clone());
            let read = tokio::task::spawn_blocking(move || Self::read(&ca, &certificate));
            if let Ok(expiry) = read.await
                && told.send(expiry).is_err()
            {
                return;
            }
        }
    }
}

fn earliest(file: &Path) -> Option<i64> {
    CertificateInfo::read_file(file).ok()?.iter().map(|certificate| certificate.not_after).min()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pem(year: i32) -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_first_of_several_authorities_to_expire_counts() {
        let folder = std::env::temp_dir().join(format!("vipa-expiry-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (ca, own) = (file("ca.pem", &(pem(2035) + &pem(2031))), file("r1.pem", &pem(2030)));
        let expiry = CertificateExpiry::read(&ca, &own);
        assert_eq!(expiry, CertificateExpiry { certificate: Some(1_893_456_000), authority: Some(1_924_992_000) });
        let broken = file("broken.pem", "no certificate");
        let missing = CertificateExpiry::read(&folder.join("none.pem"), &broken);
        assert_eq!(missing, CertificateExpiry::default());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
