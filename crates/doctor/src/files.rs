//! Certificates, keys, the clock, and the disk that votes are written to.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use vipa_model::{
    config::{Config, Pki},
    rfc3339_seconds,
};
use vipa_transport::{CertificateInfo, Expiry, Identity, expiry, state::StateLock};

use crate::{Diagnosis, Root};

/// Writes that are timed; the slowest counts.
const WRITES: u32 = 5;
/// What a vote takes in a file.
const VOTE_BYTES: usize = 512;

pub(crate) fn certificates(pki: &Pki, now: SystemTime) -> Vec<Diagnosis> {
    let mut findings: Vec<Diagnosis> =
        [&pki.ca, &pki.certificate].into_iter().flat_map(|path| dates(path, now)).collect();
    match Identity::load(&pki.ca, &pki.certificate, &pki.key) {
        Ok(_) => findings.push(Diagnosis::ok("certificates", "key, certificate and authority belong together")),
        // What is wrong with its dates is said already.
        Err(_) if findings.iter().any(|finding| finding.level == crate::DiagnosisLevel::Harm) => {}
        Err(error) => findings.push(Diagnosis::harm("certificates", error.to_string())),
    }
    let mode = fs::metadata(&pki.key).map(|key| key.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let text = format!("others may read it (mode {mode:o}): chmod 600 {}", pki.key.display());
        findings.push(Diagnosis::warning(format!("key {}", pki.key.display()), text));
    }
    findings
}

fn dates(path: &Path, now: SystemTime) -> Vec<Diagnosis> {
    let subject = path.display().to_string();
    let certificates = match CertificateInfo::read_file(path) {
        Ok(certificates) => certificates,
        Err(error) => return vec![Diagnosis::harm(subject, error.to_string())],
    };
    let finding = |certificate: &CertificateInfo| match (certificate.warning(now), expiry(certificate, now)) {
        (None, _) => Diagnosis::ok(
            &*subject,
            format!("{} is valid until {}", certificate.name(), rfc3339_seconds(certificate.not_after)),
        ),
        (Some(text), Expiry::ExpiresSoon { .. }) => Diagnosis::warning(&*subject, text),
        (Some(text), _) => Diagnosis::harm(&*subject, text),
    };
    certificates.iter().map(finding).collect()
}

/// Files of daemons that set the clock, while they do.
const SYNCHRONIZED: [&str; 3] = ["run/systemd/timesync/synchronized", "run/chrony/chronyd.pid", "run/ntpd.pid"];

pub(crate) fn clock(root: &Root) -> Vec<Diagnosis> {
    let by = SYNCHRONIZED.iter().find(|file| root.exists(file));
    vec![match by {
        Some(file) => Diagnosis::ok("clock", format!("is set by a time server (/{file})")),
        None => Diagnosis::warning(
            "clock",
            "nothing is seen to set it, and certificates have dates: timedatectl set-ntp true (in a container: on its host)",
        ),
    }]
}

pub(crate) fn state_dir(config: &Config) -> Vec<Diagnosis> {
    let folder = &config.node.state_dir;
    let subject = format!("state_dir {}", folder.display());
    if !folder.exists() {
        // The daemon makes it where it may.
        let parent = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let may = nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok();
        let text = format!("it is not there, and is made at the start in {}", parent.display());
        return vec![if may {
            Diagnosis::ok(subject, text)
        } else {
            let mend = format!("mkdir -p {}, and give it to the service's user", folder.display());
            Diagnosis::harm(subject, format!("it is not there, and this user may not make it: {mend}"))
        }];
    }
    let mut findings = Vec::new();
    match StateLock::holder(folder) {
        Ok(None) => findings.push(Diagnosis::ok(&*subject, "no process uses it")),
        Ok(Some(holder)) => {
            findings.push(Diagnosis::ok(&*subject, format!("{holder} uses it, and no other process may")))
        }
        Err(error) => findings.push(Diagnosis::harm(&*subject, format!("cannot read its lock: {error}"))),
    }
    if let Ok(found) = statfs(folder.as_path()) {
        let kind = found.filesystem_type();
        if kind == TMPFS_MAGIC {
            let text = "it is in memory, so that a restart of the machine forgets the votes, and two routers may own one VIPA: put it on a disk";
            findings.push(Diagnosis::harm(&*subject, text));
        } else if kind == OVERLAYFS_SUPER_MAGIC {
            let text = "it goes with its container, and the votes with it: mount a volume there";
            findings.push(Diagnosis::warning(&*subject, text));
        }
    }
    findings.push(sync_time(folder, &subject, config.cluster.lease));
    findings
}

/// How long a vote takes to be on the disk.
fn sync_time(folder: &Path, subject: &str, lease: Duration) -> Diagnosis {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let write = || -> std::io::Result<Duration> {
        let mut file = fs::File::create(&path)?;
        let mut slowest = Duration::ZERO;
        for _ in 0..WRITES {
            let begun = Instant::now();
            file.write_all(&[b'.'; VOTE_BYTES])?;
            file.sync_all()?;
            slowest = slowest.max(begun.elapsed());
        }
        Ok(slowest)
    };
    let written = write();
    let _ = fs::remove_file(&path);
    match written {
        Err(error) => {
            let owner = fs::metadata(folder).map_or(0, |folder| folder.uid());
            let text =
                format!("cannot write there: {error}; the folder is user {owner}'s: run as that user, or chown it");
            Diagnosis::harm(subject, text)
        }
        Ok(slowest) => judge_sync(subject, slowest, lease),
    }
}

/// A vote that takes longer than half a lease holds a takeover up.
fn judge_sync(subject: &str, slowest: Duration, lease: Duration) -> Diagnosis {
    let (ms, lease_ms) = (slowest.as_secs_f64() * 1e3, lease.as_millis());
    let text = format!("a vote is on the disk after {ms:.1} ms, and the lease is {lease_ms} ms");
    if slowest > lease / 2 {
        Diagnosis::harm(subject, format!("{text}: use a faster disk, or a lease_ms of {:.0} at least", ms * 2.0))
    } else if slowest > lease / 8 {
        Diagnosis::warning(subject, format!("{text}: takeovers take longer for it; use a faster disk"))
    } else {
        Diagnosis::ok(subject, text)
    }
}

#[cfg(test)]
mod tests {
    use vipa_transport::{CertifiedRoles, pki};

    use super::*;
    use crate::{
        DiagnosisLevel,
        tests::{config, root_with, said},
    };

    #[test]
    fn a_slow_disk_is_told_against_the_lease() {
        let judged = |ms| judge_sync("d", Duration::from_millis(ms), Duration::from_millis(100)).level;
        assert_eq!([5, 20, 60].map(judged), [DiagnosisLevel::Ok, DiagnosisLevel::Warning, DiagnosisLevel::Harm]);
        let said = judge_sync("d", Duration::from_millis(60), Duration::from_millis(100)).text;
        assert_eq!(
            said,
            "a vote is on the disk after 60.0 ms, and the lease is 100 ms: use a faster disk, or a lease_ms of 120 at least"
        );
    }

    #[test]
    fn a_state_directory_is_measured_and_its_user_named_and_nothing_is_left_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config("device = \"net_memif0\"");
        config.node.state_dir = folder.path().into();
        let free = said(&state_dir(&config));
        assert!(free[0].ends_with("no process uses it"), "{free:?}");
        assert!(free.last().unwrap().contains("a vote is on the disk after"), "{free:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let _lock = StateLock::take(folder.path()).unwrap();
        let used = said(&state_dir(&config));
        assert!(used[0].contains(&format!("process {} (", std::process::id())), "{used:?}");
    }

    #[test]
    fn certificates_are_judged_by_their_dates_their_kin_and_their_modes() {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path()).unwrap();
        pki::issue_for(folder.path(), &"r1".parse().unwrap(), &CertifiedRoles::router(), 10).unwrap();
        let file = |name: &str| folder.path().join(name);
        let pki = Pki {
            ca: file("ca.pem"),
            certificate: file("r1.pem"),
            key: file("r1.key"),
            revoked_nodes: vec![],
            revoked_serials: vec![],
        };
        let found = certificates(&pki, SystemTime::now());
        let severities: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(severities, [DiagnosisLevel::Ok, DiagnosisLevel::Warning, DiagnosisLevel::Ok], "{found:?}");
        assert!(found[1].text.contains("vipactl pki issue r1 --renew"), "{found:?}");
        let later = certificates(&pki, SystemTime::now() + Duration::from_secs(11 * 86_400));
        assert_eq!(later[1].level, DiagnosisLevel::Harm);
        fs::set_permissions(&pki.key, fs::Permissions::from_mode(0o644)).unwrap();
        let open = certificates(&pki, SystemTime::now());
        assert!(open[3].text.starts_with("others may read it (mode 644): chmod 600 "), "{open:?}");
        fs::remove_file(&pki.key).unwrap();
        let missing = certificates(&pki, SystemTime::now());
        assert!(missing[2].text.starts_with("cannot read "), "{missing:?}");
    }

    #[test]
    fn a_clock_that_nobody_sets_is_told() {
        assert_eq!(clock(&root_with(&[]))[0].level, DiagnosisLevel::Warning);
        assert_eq!(clock(&root_with(&[("run/systemd/timesync/synchronized", "")]))[0].level, DiagnosisLevel::Ok);
    }
}
