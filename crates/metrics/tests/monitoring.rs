//! The rules and the dashboard of docs/monitoring ask for metrics and labels that there are.

use std::{collections::BTreeSet, fs};

use vipa_metrics::{ValueKind, catalogue::ALL};

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/../../docs/monitoring/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Every name of a metric of ours in a text, as it is written there.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    // Words that end in `_` are the beginnings of names in prose.
    words.filter(|word| word.starts_with("vipa_") && !word.ends_with('_')).collect()
}

/// What may be asked for.
fn exposed() -> BTreeSet<String> {
    let mut exposed: BTreeSet<String> = BTreeSet::new();
    for about in ALL {
        match about.kind {
            ValueKind::Histogram => {
                exposed.extend(["_bucket", "_sum", "_count", ""].map(|ending| format!("{}{ending}", about.name)));
            }
            ValueKind::Counter | ValueKind::Gauge | ValueKind::Info => {
                exposed.insert(about.name.to_owned());
            }
        }
    }
    exposed
}

#[test]
fn rules_dashboard_and_pages_name_metrics_that_there_are() {
    let exposed = exposed();
    for file in ["vipa.rules.yml", "vipa.rules.test.yml", "vipa.dashboard.json", "README.md"] {
        let text = read(file);
        let unknown: Vec<&str> = names(&text).into_iter().filter(|name| !exposed.contains(*name)).collect();
        assert!(unknown.is_empty(), "docs/monitoring/{file} names {unknown:?}");
        assert!(!names(&text).is_empty(), "docs/monitoring/{file}");
    }
}

#[test]
fn every_alert_that_was_promised_is_there_with_summary_remedy_and_test() {
    let (rules, tests, page) = (read("vipa.rules.yml"), read("vipa.rules.test.yml"), read("README.md"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let named = |alert: &str| alert.lines().next().unwrap_or_default().trim().to_owned();
    let have: BTreeSet<String> = alerts.iter().map(|alert| named(alert)).collect();
    for name in [
        "NoOwner",
        "TwoOwners",
        "NoBackup",
        "Flapping",
        "Unfit",
        "NoTarget",
        "TableFull",
        "NicDrops",
        "Fenced",
        "CertificateExpires",
        "ReloadFailed",
        "ConfigDisagrees",
        "AuditDiffers",
        "VoterMissing",
    ] {
        assert!(have.contains(&format!("Vipa{name}")), "Vipa{name} is missing");
    }
    for alert in alerts {
        let name = named(alert);
        for part in ["expr: ", "severity: ", "summary: \"", "remedy: \""] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(tests.contains(&name), "{name} has no test");
        assert!(page.contains(&format!("| {name} |")), "{name} is not in docs/monitoring/README.md");
    }
}
