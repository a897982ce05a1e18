//! When certificates expire, for those who watch over them.

use std::path::Path;

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

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
}

fn earliest(file: &Path) -> Option<i64> {
    let certificates = CertificateDer::pem_file_iter(file).ok()?;
    let ends = certificates.map(|certificate| not_after(&certificate.ok()?));
    ends.collect::<Option<Vec<i64>>>()?.into_iter().min()
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
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
