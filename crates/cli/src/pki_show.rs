//! `vipactl pki show`: what certificates say.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use serde::Serialize;
use vipa_model::rfc3339_seconds;
use vipa_transport::{CertificateInfo, Expiry, expiry};

/// One certificate, for programs.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    name: String,
    roles: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    /// What to do about its dates; missing: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    #[serde(skip)]
    is_valid: bool,
}

/// What there is to print, and the exit status: 5 if one is not valid now, or only for a few days more.
pub(crate) fn show(path: &Path, json: bool) -> anyhow::Result<(String, u8)> {
    let now = SystemTime::now();
    let mut shown = Vec::new();
    for file in files(path)? {
        let certificates = CertificateInfo::read_file(&file)?;
        shown.extend(certificates.iter().map(|certificate| read(&file, certificate, now)));
    }
    anyhow::ensure!(
        !shown.is_empty(),
        "{}: no file there ends in .pem; `vipactl pki init` makes certificates",
        path.display()
    );
    let status =
        if shown.iter().all(|shown| shown.is_valid && shown.warning.is_none()) { 0 } else { crate::status::LOOK };
    let text = if json { serde_json::to_string_pretty(&shown)? + "\n" } else { shown.iter().map(text).collect() };
    Ok((text, status))
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "pem"));
    files.sort();
    Ok(files)
}

fn read(file: &Path, certificate: &CertificateInfo, now: SystemTime) -> Shown {
    Shown {
        file: file.into(),
        name: certificate.name(),
        roles: if certificate.is_authority { "signs certificates".into() } else { certificate.roles.to_string() },
        issuer: certificate.issuer.clone(),
        serial: certificate.serial.clone(),
        not_before: rfc3339_seconds(certificate.not_before),
        not_after: rfc3339_seconds(certificate.not_after),
        warning: certificate.warning(now),
        is_valid: matches!(expiry(certificate, now), Expiry::Valid { .. } | Expiry::ExpiresSoon { .. }),
    }
}

fn text(shown: &Shown) -> String {
    let Shown { file, name, roles, issuer, serial, not_before, not_after, warning, .. } = shown;
    let warning = warning.as_ref().map_or_else(String::new, |warning| format!("  ! {warning}\n"));
    format!(
        "{}: {name}\n  roles   {roles}\n  issuer  {issuer}\n  serial  {serial}\n  valid   {not_before} to {not_after}\n{warning}",
        file.display()
    )
}
