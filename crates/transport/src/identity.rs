//! Identity of this node by its certificate, and the authorities that it trusts.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    RootCertStore,
    client::Resumption,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use vipa_model::NodeName;

use crate::{
    certificate::{Certified, CertifiedRoles, RoleError},
    expiry::CertificateInfo,
    renewal::Files,
};

/// The application protocol, so that no other application on the same port is taken for a peer.
const ALPN: &[u8] = b"vipa";
/// Context of the key that makes reset tokens; see RFC 9000 §10.3.2.
const RESET_CONTEXT: &[u8] = b"vipa stateless reset";

/// A node's certificate and key, and the authorities that it trusts; checked against each other.
pub struct Identity {
    pub(crate) node: NodeName,
    pub(crate) roles: CertifiedRoles,
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
    pub(crate) reset_key: Arc<ring::hmac::Key>,
    pub(crate) files: Files,
    /// The node's first.
    pub(crate) certificates: Arc<Vec<CertificateInfo>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {path}: {source}; `vipactl pki init` and `vipactl pki issue NODE` make these files")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} in PEM: {cause}; make it anew with `vipactl pki`")]
    Pem { path: PathBuf, what: &'static str, cause: rustls_pki_types::pem::Error },
    #[error("{path} cannot be read: {why}; make it anew with `vipactl pki`")]
    Unreadable { path: PathBuf, why: &'static str },
    #[error("{path}: {what}")]
    Time { path: PathBuf, what: String },
    #[error("{path} names no node: {why}; make it with `vipactl pki issue NODE`")]
    NotANode { path: PathBuf, why: &'static str },
    #[error("{path} cannot be used: {cause}")]
    Role { path: PathBuf, cause: RoleError },
    #[error(
        "{certificate} is not accepted by the authority in {ca}: {cause}; issue it again with this authority's key"
    )]
    NotAccepted { certificate: PathBuf, ca: PathBuf, cause: rustls::Error },
    #[error("{key} does not belong to {certificate}: {cause}; `vipactl pki issue NODE` makes both together")]
    KeyMismatch { key: PathBuf, certificate: PathBuf, cause: rustls::Error },
    #[error("{ca} is no authority: {cause}; `vipactl pki init` makes one")]
    Authority { ca: PathBuf, cause: String },
}

impl Identity {
    /// Reads and checks three PEM files. `ca` may hold several authorities, for the time in which one replaces another.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let files = Files::new(ca, certificate, key);
        let authorities = pems::<CertificateDer<'static>>(ca, "certificate")?;
        let chain = vec![pem::<CertificateDer<'static>>(certificate, "certificate")?];
        let private = pem::<PrivateKeyDer<'static>>(key, "private key")?;

        let not_a_node = |why| IdentityError::NotANode { path: certificate.into(), why };
        let Certified { node, roles, .. } = Certified::read(&chain[0]).map_err(not_a_node)?;
        if roles.is_empty() {
            return Err(IdentityError::Role { path: certificate.into(), cause: RoleError::None(node) });
        }
        let bad_authority = |cause: String| IdentityError::Authority { ca: ca.into(), cause };
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|error| bad_authority(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| bad_authority(error.to_string()))?;
        let infos = [&chain[0]].into_iter().chain(&authorities).map(CertificateInfo::read);
        let certificates: Vec<_> = infos.collect::<Result<_, _>>().map_err(|why| bad_authority(why.into()))?;
        verifier.verify_client_cert(&chain[0], &[], UnixTime::now()).map_err(|cause| {
            let now = SystemTime::now();
            match certificates[0].warning(now).filter(|_| is_about_time(&cause)) {
                Some(what) => IdentityError::Time { path: certificate.into(), what },
                None => IdentityError::NotAccepted { certificate: certificate.into(), ca: ca.into(), cause },
            }
        })?;

        let mismatch = |cause| IdentityError::KeyMismatch { key: key.into(), certificate: certificate.into(), cause };
        let reset_key = reset_key(&private);
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), private.clone_key())
            .map_err(mismatch)?;
        client.alpn_protocols = vec![ALPN.into()];
        // Every link proves both sides again; a handshake on a local network costs a few milliseconds.
        client.resumption = Resumption::disabled();
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, private)
            .map_err(mismatch)?;
        server.alpn_protocols = vec![ALPN.into()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Ok(Self {
            node,
            roles,
            server: Arc::new(QuicServerConfig::try_from(server).expect("ring has the initial cipher suite")),
            client: Arc::new(QuicClientConfig::try_from(client).expect("ring has the initial cipher suite")),
            reset_key: Arc::new(reset_key),
            files,
            verifier,
            certificates: Arc::new(certificates),
        })
    }

    /// What the node's certificate says of itself, and then what each authority's says.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateInfo] {
        &self.certificates
    }

    /// Whether one of the authorities has signed this certificate, and it is valid now.
    pub(crate) fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.verifier.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
    }

    /// The node that the certificate names.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }
}

fn is_about_time(cause: &rustls::Error) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(error) = cause else { return false };
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// The same for every incarnation of the node, so that a restarted one can end its former links at once.
fn reset_key(private: &PrivateKeyDer<'_>) -> ring::hmac::Key {
    let extract = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, RESET_CONTEXT);
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, ring::hmac::sign(&extract, private.secret_der()).as_ref())
}

fn pem<T: PemObject>(path: &Path, what: &'static str) -> Result<T, IdentityError> {
    let text = fs::read(path).map_err(|source| IdentityError::Read { path: path.into(), source })?;
    T::from_pem_slice(&text).map_err(|cause| IdentityError::Pem { path: path.into(), what, cause })
}

/// Every item of its kind in a file, at least one.
fn pems<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, IdentityError> {
    let text = fs::read(path).map_err(|source| IdentityError::Read { path: path.into(), source })?;
    let bad = |cause| IdentityError::Pem { path: path.into(), what, cause };
    let items: Vec<T> = T::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(bad)?;
    if items.is_empty() { Err(bad(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(items) }
}
