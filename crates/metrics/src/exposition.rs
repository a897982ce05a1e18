//! Text of a snapshot, in the two formats that Prometheus reads.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    encoding::{EncodeLabelKey, EncodeLabelValue},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::{
    catalogue::{ALL, About, ValueKind},
    snapshot::{Series, Snapshot, Value},
};

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that a scraper's `Accept` header asks for. Without a word, Prometheus' own: it is what a person with curl expects.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let asks = |kind: &str| kind.trim_start().to_ascii_lowercase().starts_with("application/openmetrics-text");
        let is_refused = |kind: &str| kind.split(';').any(|part| part.trim() == "q=0" || part.trim() == "q=0.0");
        let wanted = accept.is_some_and(|accept| accept.split(',').any(|kind| asks(kind) && !is_refused(kind)));
        if wanted { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// For the header of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text of all metrics that `snapshot` has.
///
/// # Errors
/// Never, in fact: text is written to memory.
pub fn expose(snapshot: Arc<Snapshot>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (about, series) in ALL.iter().zip(&self.families).filter(|(_, series)| !series.is_empty()) {
            let (base, unit) = parts(about);
            let kind = match about.kind {
                ValueKind::Counter => MetricType::Counter,
                ValueKind::Gauge => MetricType::Gauge,
                ValueKind::Histogram => MetricType::Histogram,
                ValueKind::Info => MetricType::Info,
            };
            let mut family = encoder.encode_descriptor(base, about.help, unit.as_ref(), kind)?;
            for Series { labels, value } in series {
                let labels = Labels { names: about.labels, values: labels };
                match value {
                    Value::Present => family.encode_info(&labels)?,
                    _ if about.labels.is_empty() => encode_value(value, family.encode_family(&NoLabels)?)?,
                    _ => encode_value(value, family.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

fn encode_value(value: &Value, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, u64, u64>(count, None),
        Value::Seconds(seconds) => encoder.encode_counter::<NoLabelSet, f64, u64>(seconds, None),
        Value::Level(level) => encoder.encode_gauge(level),
        Value::Observations(histogram) => {
            encoder.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &histogram.buckets(), None)
        }
        Value::Present => Ok(()),
    }
}

/// The name as the encoder wants it, without the endings that it puts there itself: kind and unit.
fn parts(about: &About) -> (&'static str, Option<Unit>) {
    let ending = match about.kind {
        ValueKind::Counter => "_total",
        ValueKind::Info => "_info",
        ValueKind::Gauge | ValueKind::Histogram => "",
    };
    let name = about.name.strip_suffix(ending).unwrap_or(about.name);
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes), ("_ratio", Unit::Other("ratio".into()))];
    let found = units.into_iter().find_map(|(ending, unit)| Some((name.strip_suffix(ending)?, Some(unit))));
    found.unwrap_or((name, None))
}

#[derive(Debug)]
struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [Option<crate::Label>],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(self.values.iter().flatten()) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            EncodeLabelKey::encode(name, &mut key)?;
            let mut text = key.encode_label_value()?;
            EncodeLabelValue::encode(&value.to_string(), &mut text)?;
            text.finish()?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct NoLabels;

impl EncodeLabelSet for NoLabels {
    fn encode(&self, _: &mut LabelSetEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Histogram, Label, catalogue};

    fn snapshot() -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        let vipa: std::net::IpAddr = "192.0.2.10".parse().unwrap();
        snapshot.info(catalogue::BUILD, ["vipad".into(), Label::text("1.2.3")]);
        snapshot.count(catalogue::PORT_SENT_BYTES, [Label::text("p\"0\n")], u64::MAX);
        snapshot.count_seconds(catalogue::WORKER_BUSY, [0.into()], 1.5);
        snapshot.set(catalogue::SERVICE_TARGETS, [vipa.into(), "tcp/80".into()], 7.0);
        snapshot.set(catalogue::LEASE_MARGIN, [], 0.25);
        let mut detect = Histogram::new(&[0.1, 1.0]);
        [0.05, 0.5].into_iter().for_each(|seconds| detect.observe(seconds));
        snapshot.observed(catalogue::TAKEOVER_TIME, ["detect".into()], &detect);
        Arc::new(snapshot)
    }

    #[test]
    fn prometheus_reads_names_types_labels_and_values() {
        let text = expose(snapshot(), Format::Prometheus).unwrap();
        for line in [
            "# TYPE vipa_build_info gauge",
            "vipa_build_info{program=\"vipad\",version=\"1.2.3\"} 1",
            "# TYPE vipa_port_sent_bytes_total counter",
            "vipa_port_sent_bytes_total{port=\"p\\\"0\\n\"} 18446744073709551615",
            "vipa_worker_busy_seconds_total{worker=\"0\"} 1.5",
            "vipa_service_targets{vipa=\"192.0.2.10\",service=\"tcp/80\"} 7.0",
            "vipa_lease_margin_seconds 0.25",
            "# TYPE vipa_takeover_phase_seconds histogram",
            "vipa_takeover_phase_seconds_bucket{phase=\"detect\",le=\"0.1\"} 1",
            "vipa_takeover_phase_seconds_bucket{phase=\"detect\",le=\"1\"} 2",
            "vipa_takeover_phase_seconds_bucket{phase=\"detect\",le=\"+Inf\"} 2",
            "vipa_takeover_phase_seconds_sum{phase=\"detect\"} 0.55",
            "vipa_takeover_phase_seconds_count{phase=\"detect\"} 2",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("vipa_port_up"), "what has no series has no heading");
    }

    #[test]
    fn openmetrics_has_units_and_an_end() {
        let text = expose(snapshot(), Format::OpenMetrics).unwrap();
        for line in [
            "# TYPE vipa_worker_busy_seconds counter",
            "# UNIT vipa_worker_busy_seconds seconds",
            "vipa_worker_busy_seconds_total{worker=\"0\"} 1.5",
            "vipa_build_info{program=\"vipad\",version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_accept_header_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain"), Some("application/openmetrics-text;q=0, text/plain")] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other:?}");
        }
    }
}
