//! Since when and until when certificates are valid, and words for that.
//!
//! ```text
//!   not_before                         30 days   14   7   1  not_after
//! ──────┼──────────────────────────────────┼──────┼───┼───┼──────┼──────►
//!  NotYetValid            Valid                 ExpiresSoon        Expired
//! ```
//! A node's certificate that has expired keeps its links and gets no new one, so that it is warned of long before.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use vipa_model::{NodeName, rfc3339_seconds};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    IdentityError,
    certificate::{Certified, CertifiedRoles},
};

/// Days before its end on which a certificate is warned of, growing.
pub const WARNING_DAYS: [u16; 4] = [1, 7, 14, 30];
/// Clocks that differ by more than this are told apart from certificates whose time is over.
const CLOCKS_DIFFER: Duration = Duration::from_secs(10 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject's common name, or its whole name where it has none.
    pub subject: String,
    pub issuer: String,
    /// As `openssl x509 -serial` prints it, in lower case: what `pki.revoked_serials` takes.
    pub serial: String,
    pub is_authority: bool,
    /// The node that it is of; `None`: an authority's, or one that names no node.
    pub node: Option<NodeName>,
    /// What the node may be.
    pub roles: CertifiedRoles,
    /// UNIX seconds.
    pub not_before: i64,
    /// UNIX seconds; the last one at which it is valid.
    pub not_after: i64,
}

/// How a certificate's dates and a clock agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// For longer than the first warning.
    Valid {
        left: Duration,
    },
    /// `days` is the warning that is due: one of [`WARNING_DAYS`].
    ExpiresSoon {
        days: u16,
        left: Duration,
    },
    Expired {
        since: Duration,
    },
    /// The clock here is behind, or the clock of the machine that issued it was ahead.
    NotYetValid {
        until: Duration,
    },
}

/// How the dates of `certificate` agree with the clock that says `now`.
#[must_use]
pub fn expiry(certificate: &CertificateInfo, now: SystemTime) -> Expiry {
    let now = unix_seconds(now);
    let between = |earlier: i64, later: i64| Duration::from_secs(later.abs_diff(earlier));
    if now < certificate.not_before {
        return Expiry::NotYetValid { until: between(now, certificate.not_before) };
    }
    if now > certificate.not_after {
        return Expiry::Expired { since: between(certificate.not_after, now) };
    }
    let left = between(now, certificate.not_after);
    match WARNING_DAYS.into_iter().find(|days| left <= DAY * u32::from(*days)) {
        Some(days) => Expiry::ExpiresSoon { days, left },
        None => Expiry::Valid { left },
    }
}

/// Seconds since 1970; negative before.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -whole(before.duration()), whole)
}

impl CertificateInfo {
    /// Reads every certificate of a PEM file; at least one.
    pub fn read_file(path: &Path) -> Result<Vec<Self>, IdentityError> {
        let text = fs::read(path).map_err(|source| IdentityError::Read { path: path.into(), source })?;
        let bad = |cause| IdentityError::Pem { path: path.into(), what: "certificate", cause };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(bad)?;
        if chain.is_empty() {
            return Err(bad(rustls_pki_types::pem::Error::NoItemsFound));
        }
        let read = |der| Self::read(der).map_err(|why| IdentityError::Unreadable { path: path.into(), why });
        chain.iter().map(read).collect()
    }

    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "it is no X.509 certificate")?;
        let name = |name: &x509_parser::x509::X509Name<'_>| {
            let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
            common.map_or_else(|| name.to_string(), str::to_owned)
        };
        let (node, roles) = match Certified::read(der) {
            Ok(Certified { node, roles, .. }) => (Some(node), roles),
            Err(_) => (None, CertifiedRoles::default()),
        };
        Ok(Self {
            subject: name(parsed.subject()),
            issuer: name(parsed.issuer()),
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            is_authority: parsed.is_ca(),
            node,
            roles,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Whose it is, as in a sentence: `the certificate of r1`, `the authority "Vipa cluster authority"`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.node {
            Some(node) => format!("the certificate of {node}"),
            None if self.is_authority => format!("the authority {:?}", self.subject),
            None => format!("the certificate {:?}", self.subject),
        }
    }

    /// What mends one whose time is over, or nearly: the command.
    fn remedy(&self) -> String {
        match &self.node {
            Some(node) => format!(
                "on the machine that has ca.key: `vipactl pki issue {node} --renew`; a node takes its new files up by itself"
            ),
            None => "replace the authority as docs/security.md says".into(),
        }
    }

    /// What there is to say about it at this moment, with what to do; `None`: nothing.
    #[must_use]
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let (name, after, clock) = (self.name(), rfc3339_seconds(self.not_after), rfc3339_seconds(unix_seconds(now)));
        Some(match expiry(self, now) {
            Expiry::Valid { .. } => return None,
            Expiry::ExpiresSoon { left, .. } => {
                format!("{name} expires in {}, on {after}: {}", Span(left), self.remedy())
            }
            Expiry::Expired { since } => format!(
                "{name} expired {} ago, on {after}; this machine's clock says {clock}. If the clock is right, {}; if not, set it \
                 (`timedatectl`)",
                Span(since),
                self.remedy()
            ),
            Expiry::NotYetValid { until } => format!(
                "{name} is valid from {} on, and this machine's clock says {clock}, which is {} too early: set the clock that is \
                 wrong, this one (`timedatectl`) or that of the machine that issues certificates",
                rfc3339_seconds(self.not_before),
                Span(until)
            ),
        })
    }
}

/// A duration as people say it: `13 days`, `1 day`, `5 hours`, `30 minutes`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (number, unit) = match seconds {
            0..120 => (seconds, "second"),
            120..7_200 => (seconds / 60, "minute"),
            7_200..172_800 => (seconds / 3_600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

/// Whose certificate a TLS error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A peer's, refused here.
    Peer,
    /// This node's, refused by a peer, by whose clock the error was made.
    Own,
}

/// What an error about a certificate's dates means, in dates and with what to do. `reason` is what rustls says here, or what the peer's
/// says in the QUIC close frame; `None`: it is about something else.
pub(crate) fn explain(reason: &str, whose: Whose, now: SystemTime) -> Option<String> {
    let number_after = |mark: &str| {
        let (_, rest) = reason.split_once(mark)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok()
    };
    let clock = number_after("verification time ")?;
    let here = unix_seconds(now);
    let (dated, is_early) = match number_after("not valid after ") {
        Some(after) => (after, false),
        None => (number_after("not valid before ")?, true),
    };
    let date = rfc3339_seconds(dated);
    if whose == Whose::Own && here.abs_diff(clock) > CLOCKS_DIFFER.as_secs() {
        let (verb, clock, here) =
            (if is_early { "is valid from" } else { "expired on" }, rfc3339_seconds(clock), rfc3339_seconds(here));
        return Some(format!(
            "by its clock, {clock}, this node's certificate {verb} {date}, but this node's clock says {here}: set the clock that is \
             wrong (`timedatectl` on both)"
        ));
    }
    let clock = rfc3339_seconds(clock);
    Some(match (whose, is_early) {
        (Whose::Own, false) => format!(
            "this node's certificate expired on {date}, and it is {clock}: issue a new one with `vipactl pki issue NODE --renew`"
        ),
        (Whose::Own, true) => format!(
            "this node's certificate is valid from {date} on, and it is {clock} here and at the peer: set the clocks, or that of the \
             machine that issued it"
        ),
        (Whose::Peer, false) => format!(
            "its certificate expired on {date}, and this node's clock says {clock}: if the clock is right, issue a new one with `vipactl pki issue NODE \
             --renew`; if not, set it (`timedatectl`)"
        ),
        (Whose::Peer, true) => format!(
            "its certificate is valid from {date} on, and this node's clock says {clock}: set the clock that is wrong, this one \
             (`timedatectl`) or that of the machine that issued it"
        ),
    })
}

#[cfg(test)]
mod tests;
