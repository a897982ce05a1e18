//! TLS with client certificates, and taking renewed files up while it runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::watch;
use vipa_model::{config::ApiTls, with_causes};

/// Between two looks at the files.
const RENEWAL: Duration = Duration::from_secs(5);
/// A file of certificates is not longer than this, bytes.
const LONGEST_FILE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} in PEM")]
    Pem { path: PathBuf, what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("{path} cannot be used: {cause}")]
    Unusable { path: PathBuf, cause: String },
}

/// The files' content, to see when it changes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

impl Files {
    pub(crate) fn read(tls: &ApiTls) -> Result<Self, TlsError> {
        let ApiTls { address: _, certificate, key, authority } = tls;
        Ok(Self { certificate: read(certificate)?, key: read(key)?, authority: read(authority)? })
    }

    pub(crate) fn server(&self, tls: &ApiTls) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Vec<CertificateDer<'static>> = pems(&self.certificate, &tls.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let no_key = |source| TlsError::Pem { path: tls.key.clone(), what: "private key", source };
        let key = key.map_err(no_key)?;
        let unusable = |path: &Path, error: &(dyn std::error::Error + 'static)| TlsError::Unusable {
            path: path.to_owned(),
            cause: with_causes(error),
        };
        let mut roots = RootCertStore::empty();
        for authority in pems(&self.authority, &tls.authority, "certificate")? {
            roots.add(authority).map_err(|error| unusable(&tls.authority, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&tls.authority, &error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&tls.certificate, &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&tls.certificate, &error))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection proves anew who it is.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Arc::new(server))
    }
}

/// Takes renewed files up, until nobody uses them.
pub(crate) async fn watch(tls: ApiTls, mut known: Files, configs: watch::Sender<Arc<ServerConfig>>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        if configs.is_closed() {
            return;
        }
        let (looked_at, before) = (tls.clone(), known.clone());
        let look = move || {
            let files = Files::read(&looked_at)?;
            let config = if files == before { None } else { Some(files.server(&looked_at)) };
            Ok::<_, TlsError>((files, config))
        };
        // Files that are being replaced may be missing for a moment.
        let Ok(Ok((files, config))) = tokio::task::spawn_blocking(look).await else { continue };
        known = files;
        match config {
            None => {}
            Some(Ok(config)) => {
                tracing::info!(certificate = %tls.certificate.display(), "the API takes renewed certificate files up");
                configs.send_replace(config);
            }
            Some(Err(error)) => {
                let error = with_causes(&error);
                tracing::warn!(%error, "the API keeps its former certificate: the new files cannot be used");
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > LONGEST_FILE {
        let cause = format!("it has {length} bytes, and no file of certificates has more than {LONGEST_FILE}");
        return Err(TlsError::Unusable { path: path.to_owned(), cause });
    }
    fs::read(path).map_err(failed)
}

fn pems<T: PemObject>(text: &[u8], path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), what, source };
    let items: Vec<T> = T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(failed)?;
    if items.is_empty() { Err(failed(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(items) }
}
