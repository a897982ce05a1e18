//! What a figure is, and what it says.

use crate::machine::Machine;

/// One of the speeds we owe.
pub(crate) struct Figure {
    /// `P1`.
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) measure: fn(&Machine) -> anyhow::Result<Vec<Case>>,
}

/// One line of the table: one circumstance under which a figure was measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// As a reader would say it: `direct, 4 k flows`.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) owed: Owed,
    /// What else there is to know, such as both rates of a ratio; names in snake_case with their unit last.
    pub(crate) beside: Vec<(&'static str, f64)>,
}

/// What would be good enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owed {
    AtLeast(f64),
    AtMost(f64),
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str, owed: Owed) -> Self {
        Self { name: name.into(), value, unit, owed, beside: Vec::new() }
    }

    pub(crate) fn beside(mut self, name: &'static str, value: f64) -> Self {
        self.beside.push((name, value));
        self
    }
}

impl Owed {
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(owed) => value >= owed,
            Self::AtMost(owed) => value <= owed,
        }
    }
}

/// The middle one.
///
/// # Panics
/// Without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 5.0, 2.0]), 3.5);
    }

    #[test]
    fn what_is_owed_may_be_a_least_or_a_most() {
        assert!(Owed::AtLeast(0.6).is_met_by(0.6) && !Owed::AtLeast(0.6).is_met_by(0.59));
        assert!(Owed::AtMost(3.0).is_met_by(3.0) && !Owed::AtMost(3.0).is_met_by(3.01));
    }
}
