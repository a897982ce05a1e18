//! docs/metrics.md.

use std::fmt::Write as _;

use crate::catalogue::{ALL, About, MetricSource, ValueKind};

const HEAD: &str = "\
# Metrics

`[metrics]` in the configuration has a router or an agent answer Prometheus; [monitoring/README.md](monitoring/README.md) says how to set
it up. This page is generated from `crates/metrics/src/catalogue.rs` by `WRITE=1 cargo test -p vipa-metrics --test page`, and a test
holds it to that.

Times are in seconds and sizes in bytes. A metric whose name ends in `_total` is a counter from the start of the process; use `rate()`
or `increase()`. A state is a gauge of 0 or 1. \"Series\" says what the number of a metric's series depends on:

| series | at most |
|---|---|
| 1, 2 | so many |
| ports, workers | those of the configuration, and a port's `kernel_interface` |
| fixed names | the names are in the program; the checks of an agent are at most 64 |
| VIPAs | 4,096 |
| services | 16,384 reported; `vipa_scrape_series_left_out` counts others |
| targets | 8,192 |
| nodes | the routers of the configuration, and the targets with a valid certificate that were ever linked |

What is counted by VIPA, service or target goes when that leaves the configuration. A counter begins at 0 again when the program
starts, or when a target leaves the configuration for longer than half a minute and comes back.
";

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    chapter(&mut out, "Routers and agents", |source| source == MetricSource::Both);
    chapter(&mut out, "Routers", |source| source == MetricSource::Router);
    chapter(&mut out, "Agents", |source| source == MetricSource::Agent);
    out
}

fn chapter(out: &mut String, title: &str, belongs: impl Fn(MetricSource) -> bool) {
    // Into a string nothing fails.
    let _ = write!(out, "\n## {title}\n\n| metric | kind | labels | series | what it is |\n|---|---|---|---|---|\n");
    for About { name, kind, labels, bound, help, .. } in ALL.iter().filter(|about| belongs(about.source)) {
        let kind = match kind {
            ValueKind::Counter => "counter",
            ValueKind::Gauge => "gauge",
            ValueKind::Histogram => "histogram",
            ValueKind::Info => "info",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {} | {help} |", bound.text());
    }
}
