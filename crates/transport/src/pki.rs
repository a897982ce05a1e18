//! The cluster's own certificate authority, in a folder of PEM files:
//!
//! ```text
//! ca.pem  ca.key          the authority; ca.key signs and belongs on no node
//! NODE.pem  NODE.key      a node's certificate and key; go to that node, with ca.pem
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::ServerName;
use vipa_model::NodeName;

use crate::{
    certificate::{CertifiedRoles, MAX_ADDRESSES, ROUTER_URI, TARGET_URI},
    durable,
    expiry::CertificateInfo,
};

/// Days for which certificates are valid where nobody says how many: ten years, so that none expires unnoticed and causes an outage.
pub const DEFAULT_DAYS: u32 = 3_653;
/// Most days: a century.
pub const MOST_DAYS: u32 = 36_525;
/// How far certificates are dated back, so that a node whose clock is slow accepts a new one.
const CLOCK_ERROR: Duration = Duration::from_secs(2 * DAY);
const DAY: u64 = 24 * 60 * 60;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path} exists already; remove it first if nothing uses it any more, or choose another --dir")]
    Exists { path: PathBuf },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}; `vipactl pki init` makes the authority")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used: {cause}; `vipactl pki init` makes a new authority")]
    Authority { path: PathBuf, cause: rcgen::Error },
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("{0} cannot stand in a certificate: a node's name needs a letter")]
    Name(NodeName),
    #[error("a certificate says what its node may be: add --router, or --target ADDRESS, or both")]
    NoRole,
    #[error("{path} cannot be renewed: {why}; issue it with its roles, --router or --target ADDRESS")]
    NotRenewable { path: PathBuf, why: String },
    #[error("a certificate is valid for 1 to {MOST_DAYS} days, and not for {0}")]
    Days(u32),
    #[error("{0} addresses are more than the {MAX_ADDRESSES} that a certificate may name")]
    Addresses(usize),
}

/// The two files that were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Makes a new authority in `folder`, which is created if it does not exist. Overwrites nothing.
pub fn init(folder: &Path) -> Result<Made, PkiError> {
    init_for(folder, DEFAULT_DAYS)
}

/// As [`init`], valid for so many days, at most [`MOST_DAYS`].
pub fn init_for(folder: &Path, days: u32) -> Result<Made, PkiError> {
    let made = files(folder, "ca");
    refuse_existing(&made)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Vipa cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, days)?;
    let certificate = params.self_signed(&key)?;
    write_both(folder, made, &Pems { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a key and a certificate for `node` in these roles, signed by the authority in `folder`. Nothing is overwritten.
pub fn issue(folder: &Path, node: &NodeName, roles: &CertifiedRoles) -> Result<Made, PkiError> {
    issue_for(folder, node, roles, DEFAULT_DAYS)
}

/// As [`issue`], valid for so many days, at most [`MOST_DAYS`].
pub fn issue_for(folder: &Path, node: &NodeName, roles: &CertifiedRoles, days: u32) -> Result<Made, PkiError> {
    issue_new(folder, node, &node_params(node, roles, days)?)
}

/// Makes a key and a certificate for a client of the API, which is no node: no node links with it. Nothing is overwritten.
pub fn issue_client(folder: &Path, name: &NodeName) -> Result<Made, PkiError> {
    let mut params = named_params(name, DEFAULT_DAYS)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue_new(folder, name, &params)
}

/// Replaces the certificate of `node` in `folder` by one with a new key, a new serial number and the same roles, valid for so many days
/// from now. Also of one that has expired.
pub fn renew(folder: &Path, node: &NodeName, days: u32) -> Result<Made, PkiError> {
    let made = files(folder, node.as_str());
    let not_renewable = |why: String| PkiError::NotRenewable { path: made.certificate.clone(), why };
    let old = CertificateInfo::read_file(&made.certificate).map_err(|error| not_renewable(error.to_string()))?;
    let of_node = old.into_iter().find(|old| old.node.as_ref() == Some(node) && !old.roles.is_empty());
    let old = of_node.ok_or_else(|| not_renewable(format!("it is no certificate of {node} in a role")))?;
    let Pems { certificate, key } = sign(folder, &node_params(node, &old.roles, days)?)?;
    replace(&made.key, key.as_bytes(), 0o600)?;
    replace(&made.certificate, certificate.as_bytes(), 0o644)?;
    Ok(made)
}

fn issue_new(folder: &Path, name: &NodeName, params: &CertificateParams) -> Result<Made, PkiError> {
    let made = files(folder, name.as_str());
    refuse_existing(&made)?;
    let pems = sign(folder, params)?;
    write_both(folder, made, &pems)
}

fn node_params(node: &NodeName, roles: &CertifiedRoles, days: u32) -> Result<CertificateParams, PkiError> {
    if roles.is_empty() {
        return Err(PkiError::NoRole);
    }
    if roles.addresses.len() > MAX_ADDRESSES {
        return Err(PkiError::Addresses(roles.addresses.len()));
    }
    let mut params = named_params(node, days)?;
    if roles.router {
        params.subject_alt_names.push(SanType::URI(ROUTER_URI.try_into()?));
    }
    if !roles.addresses.is_empty() {
        params.subject_alt_names.push(SanType::URI(TARGET_URI.try_into()?));
        params.subject_alt_names.extend(roles.addresses.iter().copied().map(SanType::IpAddress));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn named_params(name: &NodeName, days: u32) -> Result<CertificateParams, PkiError> {
    if !matches!(ServerName::try_from(name.as_str()), Ok(ServerName::DnsName(_))) || name.as_str() == "ca" {
        return Err(PkiError::Name(name.clone()));
    }
    let mut params = CertificateParams::new([name.to_string()])?;
    params.distinguished_name = named(name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, days)?;
    Ok(params)
}

/// Both files of a certificate, not written yet.
struct Pems {
    certificate: String,
    key: String,
}

/// Makes a key and signs its certificate by the authority in `folder`.
fn sign(folder: &Path, params: &CertificateParams) -> Result<Pems, PkiError> {
    let authority = files(folder, "ca");
    let read = |path: &Path| fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.into(), source });
    let (ca_certificate, ca_key) = (read(&authority.certificate)?, read(&authority.key)?);
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |cause| PkiError::Authority { path, cause }
    };
    let ca_key = KeyPair::from_pem(&ca_key).map_err(bad(&authority.key))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_certificate, ca_key).map_err(bad(&authority.certificate))?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pems { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, days: u32) -> Result<(), PkiError> {
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(PkiError::Days(days));
    }
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_ERROR).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * DAY)).into();
    Ok(())
}

fn files(folder: &Path, name: &str) -> Made {
    Made { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
}

fn refuse_existing(made: &Made) -> Result<(), PkiError> {
    let existing = [&made.certificate, &made.key].into_iter().find(|path| path.exists());
    existing.map_or(Ok(()), |path| Err(PkiError::Exists { path: path.clone() }))
}

fn write_both(folder: &Path, made: Made, pems: &Pems) -> Result<Made, PkiError> {
    fs::create_dir_all(folder).map_err(|source| PkiError::Write { path: folder.into(), source })?;
    // The key first: a certificate without its key would look complete.
    write(&made.key, &pems.key, 0o600)?;
    write(&made.certificate, &pems.certificate, 0o644)?;
    Ok(made)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| PkiError::Write { path: path.into(), source })
}

fn replace(path: &Path, text: &[u8], mode: u32) -> Result<(), PkiError> {
    durable::replace_with_mode(path, text, mode).map_err(|source| PkiError::Write { path: path.into(), source })
}
