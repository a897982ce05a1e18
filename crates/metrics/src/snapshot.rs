//! The values of one moment. To fill one costs the loop that knows them little: labels are numbers, addresses and shared names,
//! and text is made of them elsewhere.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::catalogue::{ALL, Family, ValueKind};

/// Series of one metric at most; more are left out and counted. Above MAX_VIPAS and MAX_PATHS of `vipa_model`, so that only
/// services can be too many.
pub const MAX_SERIES: usize = 16_384;
/// Bytes of a label's text at most.
const MAX_LABEL: usize = 256;
/// Labels of one metric at most.
const MOST_LABELS: usize = 2;

const _: () = assert!(MAX_SERIES >= vipa_model::MAX_VIPAS && MAX_SERIES >= vipa_model::MAX_PATHS);

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    Name(&'static str),
    Text(Arc<str>),
    Address(IpAddr),
    Number(u64),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl From<&'static str> for Label {
    fn from(name: &'static str) -> Self {
        Self::Name(name)
    }
}

impl From<IpAddr> for Label {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<u64> for Label {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl Label {
    /// Text that is not fixed in the program; what is beyond 256 bytes is cut off.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let end = (0..=text.len().min(MAX_LABEL)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        Self::Text(text[..end].into())
    }
}

/// Observations by their size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, rising; the last bucket, without one, is not among them.
    bounds: &'static [f64],
    /// Of each bucket alone, one more than bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// Upper bounds for how long the phases of a takeover take, seconds: from one beat to what a client gives up after.
    pub const TAKEOVER: &'static [f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// The bound and the own count of each bucket that has a bound; the encoder adds the one without.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        self.bounds.iter().copied().zip(self.counts.iter().copied()).collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Count(u64),
    Seconds(f64),
    Level(f64),
    Observations(Box<Histogram>),
    Present,
}

/// One series.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: [Option<Label>; MOST_LABELS],
    pub(crate) value: Value,
}

/// What all metrics of a program are at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By the metric's place in [`ALL`].
    pub(crate) families: Vec<Vec<Series>>,
    left_out: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { families: vec![Vec::new(); ALL.len()], left_out: 0 }
    }
}

impl Snapshot {
    /// A number that only rises.
    pub fn count<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], value: u64) {
        self.add(family, labels, Value::Count(value), ValueKind::Counter);
    }

    /// Seconds that only become more.
    pub fn count_seconds<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], seconds: f64) {
        self.add(family, labels, Value::Seconds(seconds), ValueKind::Counter);
    }

    pub fn set<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], value: f64) {
        self.add(family, labels, Value::Level(value), ValueKind::Gauge);
    }

    /// 1 for true and 0 for false.
    pub fn flag<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], holds: bool) {
        self.set(family, labels, f64::from(u8::from(holds)));
    }

    pub fn observed<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], observations: &Histogram) {
        self.add(family, labels, Value::Observations(Box::new(observations.clone())), ValueKind::Histogram);
    }

    pub fn info<const N: usize>(&mut self, family: Family<N>, labels: [Label; N]) {
        self.add(family, labels, Value::Present, ValueKind::Info);
    }

    /// Series that did not fit.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn add<const N: usize>(&mut self, family: Family<N>, labels: [Label; N], value: Value, kind: ValueKind) {
        const { assert!(N <= MOST_LABELS) };
        debug_assert_eq!(ALL[family.index].kind, kind, "{}", ALL[family.index].name);
        let series = &mut self.families[family.index];
        if series.len() >= MAX_SERIES {
            self.left_out += 1;
            return;
        }
        let mut labels = labels.into_iter();
        series.push(Series { labels: std::array::from_fn(|_| labels.next()), value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn a_metric_has_no_more_series_than_it_may_and_says_how_many_are_missing() {
        let mut snapshot = Snapshot::default();
        for number in 0..MAX_SERIES as u64 + 3 {
            snapshot.count(catalogue::WORKER_TURNS, [number.into()], 1);
        }
        assert_eq!(snapshot.families[catalogue::WORKER_TURNS.index].len(), MAX_SERIES);
        assert_eq!(snapshot.left_out(), 3);
    }

    #[test]
    fn a_long_label_is_cut_at_a_character() {
        let Label::Text(text) = Label::text(&"ä".repeat(200)) else { panic!("it is text") };
        assert_eq!(text.len(), MAX_LABEL);
        assert_eq!(Label::text("short").to_string(), "short");
    }

    #[test]
    fn an_observation_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        [0.05, 0.1, 0.5, 7.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.buckets(), [(0.1, 2), (1.0, 1)]);
        assert_eq!(histogram.count(), 4);
    }
}
