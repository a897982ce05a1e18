//! Active checks: what is asked of an application, and how many answers make up a mind.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// Does a TCP connection open?
    Connect(SocketAddr),
    /// Does `GET path` answer with one of these statuses, both ends included?
    Http { address: SocketAddr, path: String, statuses: (u16, u16) },
    /// Does this program end with success? The first word is its path.
    Command(Vec<String>),
}

/// How often, how long, and after how many answers of a kind it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pace {
    pub interval: Duration,
    /// No answer by then is a failure.
    pub timeout: Duration,
    /// Successes in a row that end a failure.
    pub rise: u32,
    /// Failures in a row that begin one.
    pub fall: u32,
}

/// `[[agent.check]]`: a check that a target makes of its own application.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub probe: Probe,
    /// The port of the services it speaks for; `None`: the whole target.
    pub port: Option<u16>,
    pub pace: Pace,
}

/// Successes and failures in a row. The very first answer is believed at once.
///
/// ```text
///   unknown ──first answer──► passing ──fall failures in a row──► failing
///                                ▲──────rise successes in a row──────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    passing: Option<bool>,
    /// Answers in a row that speak against it.
    against: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Verdict {
    pub const UNKNOWN: Self = Self { passing: None, against: 0 };

    /// Takes an answer in; whether the verdict is another one now.
    pub fn take(&mut self, succeeded: bool, pace: &Pace) -> bool {
        let Some(passing) = self.passing else {
            self.passing = Some(succeeded);
            return true;
        };
        if passing == succeeded {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if passing { pace.fall } else { pace.rise };
        if self.against < enough {
            return false;
        }
        *self = Self { passing: Some(succeeded), against: 0 };
        true
    }

    /// What is not known yet does not pass.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.passing == Some(true)
    }

    #[must_use]
    pub fn is_known(&self) -> bool {
        self.passing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_changes_after_rise_successes_and_fall_failures_in_a_row_and_the_first_answer_counts_at_once() {
        let second = Duration::from_secs(1);
        let pace = Pace { interval: second, timeout: second, rise: 2, fall: 3 };
        let mut verdict = Verdict::UNKNOWN;
        assert!(!verdict.passes() && !verdict.is_known());
        let mut told = Vec::new();
        for succeeded in "+--+---+-+++".chars().map(|answer| answer == '+') {
            let changed = verdict.take(succeeded, &pace);
            told.push(match (changed, verdict.passes()) {
                (true, true) => "up",
                (true, false) => "down",
                (false, _) => "",
            });
        }
        assert_eq!(told, ["up", "", "", "", "", "", "down", "", "", "", "up", ""]);
    }
}
