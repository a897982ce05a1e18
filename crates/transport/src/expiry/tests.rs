use rustls::{CertificateError, Error};
use rustls_pki_types::UnixTime;

use super::*;

const DAY_SECONDS: i64 = 24 * 60 * 60;

fn r1(not_before: i64, not_after: i64) -> CertificateInfo {
    CertificateInfo {
        subject: "r1".into(),
        issuer: "Vipa cluster authority".into(),
        serial: "0a".into(),
        is_authority: false,
        node: "r1".parse().ok(),
        roles: CertifiedRoles::router(),
        not_before,
        not_after,
    }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}

#[test]
fn the_warning_that_is_due_is_the_nearest() {
    let certificate = r1(100, 100 * DAY_SECONDS);
    let seen = |days_left: i64| expiry(&certificate, at((100 - days_left) * DAY_SECONDS));
    let left = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(seen(31), Expiry::Valid { left: left(31) });
    for (days_left, days) in [(30, 30), (15, 30), (14, 14), (8, 14), (7, 7), (2, 7), (1, 1), (0, 1)] {
        let expected = Expiry::ExpiresSoon { days, left: left(days_left) };
        assert_eq!(seen(i64::try_from(days_left).unwrap()), expected);
    }
    assert_eq!(seen(-2), Expiry::Expired { since: left(2) });
    assert_eq!(expiry(&certificate, at(40)), Expiry::NotYetValid { until: Duration::from_secs(60) });
}

#[test]
fn each_warning_says_what_when_and_what_to_do() {
    let certificate = r1(1_000_000, 1_796_099_100);
    let warning = |now: i64| certificate.warning(at(now));
    assert_eq!(warning(1_796_099_100 - 31 * DAY_SECONDS), None);
    assert_eq!(
        warning(1_796_099_100 - 7 * DAY_SECONDS).unwrap(),
        "the certificate of r1 expires in 7 days, on 2026-12-01T04:25:00Z: on the machine that has ca.key: `vipactl pki issue r1 \
         --renew`; a node takes its new files up by itself"
    );
    let over = warning(1_796_099_100 + 3 * DAY_SECONDS).unwrap();
    assert!(
        over.starts_with("the certificate of r1 expired 3 days ago, on 2026-12-01T04:25:00Z; this machine's clock says 2026-12-04T04:25:00Z."),
        "{over}"
    );
    let early = warning(0).unwrap();
    assert!(
        early.contains("is valid from 1970-01-12T13:46:40Z on, and this machine's clock says 1970-01-01T00:00:00Z"),
        "{early}"
    );
    assert!(early.contains("set the clock that is wrong"), "{early}");
}

fn rustls_says(error: CertificateError) -> String {
    Error::InvalidCertificate(error).to_string()
}

fn time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn errors_about_dates_are_told_in_dates_and_a_wrong_clock_apart_from_an_expired_certificate() {
    let (ended, now) = (1_796_099_100, 1_796_099_160);
    let expired = rustls_says(CertificateError::ExpiredContext { time: time(now), not_after: time(ended) });
    let early = rustls_says(CertificateError::NotValidYetContext { time: time(now), not_before: time(now + 86_400) });
    let here = at(i64::try_from(now).unwrap());
    assert_eq!(
        explain(&expired, Whose::Peer, here).unwrap(),
        "its certificate expired on 2026-12-01T04:25:00Z, and this node's clock says 2026-12-01T04:26:00Z: if the clock is right, issue \
         a new one with `vipactl pki issue NODE --renew`; if not, set it (`timedatectl`)"
    );
    assert_eq!(
        explain(&expired, Whose::Own, here).unwrap(),
        "this node's certificate expired on 2026-12-01T04:25:00Z, and it is 2026-12-01T04:26:00Z: issue a new one with `vipactl pki \
         issue NODE --renew`"
    );
    // The peer's clock is a day ahead of this one.
    assert_eq!(
        explain(&expired, Whose::Own, at(i64::try_from(now - 86_400).unwrap())).unwrap(),
        "by its clock, 2026-12-01T04:26:00Z, this node's certificate expired on 2026-12-01T04:25:00Z, but this node's clock says \
         2026-11-30T04:26:00Z: set the clock that is wrong (`timedatectl` on both)"
    );
    assert!(
        explain(&early, Whose::Peer, here)
            .unwrap()
            .starts_with("its certificate is valid from 2026-12-02T04:26:00Z on")
    );
    assert!(explain(&early, Whose::Own, here).unwrap().contains("set the clocks"));
    for other in [rustls_says(CertificateError::UnknownIssuer), String::new(), "verification time x".into()] {
        assert_eq!(explain(&other, Whose::Peer, here), None);
    }
}
