//! Draining: no new connections, the present ones are left to end, then the agent stops.
//!
//! ```text
//!   vipa-agent drain ──► socket of the running agent (`orders`)      {"drain":{"timeout_s":60}}, "cancel"
//!                    ◄── a line now and then ──                      {"connections":12,"left_s":48,…}
//! ```
//! SIGTERM begins the same if `drain_timeout_s` is set.

use std::{
    io::{BufRead, Write},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::orders::Wish;

/// Shortest drain of a host without connections: routers receive the intent, and what is on the way arrives.
pub(crate) const NOTICE: Duration = Duration::from_secs(1);
/// Interval at which the remaining connections are counted, and reported to waiting clients.
pub(crate) const LOOK: Duration = Duration::from_millis(200);
/// Longest drain, if no limit is given.
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Live connections to the VIPAs.
    pub(crate) connections: u64,
    /// Seconds until it stops with whatever is left.
    pub(crate) left_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Draining,
    /// Nothing is left: the agent stops.
    Drained,
    /// The time has passed: the agent stops all the same.
    OutOfTime,
    /// It serves again, as requested.
    Serving,
}

/// A drain under way. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    began: Instant,
    until: Instant,
}

impl Drain {
    pub(crate) fn begin(now: Instant, timeout: Option<Duration>) -> Self {
        Self { began: now, until: now + timeout.unwrap_or(LONGEST).min(LONGEST) }
    }

    pub(crate) fn progress(&self, now: Instant, connections: u64) -> Progress {
        let left = self.until.saturating_duration_since(now);
        let stage = match connections {
            0 if now.duration_since(self.began) >= NOTICE => Stage::Drained,
            _ if left.is_zero() => Stage::OutOfTime,
            _ => Stage::Draining,
        };
        Progress { stage, connections, left_s: left.as_secs_f64().ceil() as u64 }
    }
}

/// `vipa-agent drain`: sends the request to the running agent, and prints the progress. False: connections were left
/// when the time had passed.
pub(crate) fn ask(socket: &Path, wish: Wish) -> anyhow::Result<bool> {
    use anyhow::Context;
    let shown = socket.display();
    let mut stream = std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("no agent answers on {shown}; does it run, and with this configuration?"))?;
    stream.write_all(&[&serde_json::to_vec(&wish)?[..], b"\n"].concat())?;
    let mut last: Option<Progress> = None;
    for line in std::io::BufReader::new(stream).lines() {
        let line = line.context("the agent has gone without a word")?;
        let progress: Progress = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
        let Progress { stage, connections, left_s } = progress;
        match stage {
            Stage::Draining if last.is_some_and(|last| last.connections == connections) => {}
            Stage::Draining => println!("draining: {connections} connection(s) left, {left_s} s at most"),
            Stage::Drained => println!("drained: no connection left; the agent leaves"),
            Stage::OutOfTime => println!("time is over with {connections} connection(s) left; the agent leaves"),
            Stage::Serving => println!("serving: new connections are welcome again"),
        }
        last = Some(progress);
    }
    match last.map(|last| last.stage) {
        Some(Stage::Serving) if wish != Wish::Cancel => anyhow::bail!("somebody else has asked it to serve again"),
        None | Some(Stage::Draining) => anyhow::bail!("the agent has ended before the drain was over"),
        Some(Stage::OutOfTime) => Ok(false),
        Some(Stage::Drained | Stage::Serving) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_with_its_last_connection_or_its_time_and_never_before_routers_have_heard_of_it() {
        let began = Instant::now();
        let drain = Drain::begin(began, Some(Duration::from_secs(10)));
        let at = |ms: u64, connections| drain.progress(began + Duration::from_millis(ms), connections);
        assert_eq!(at(0, 0), Progress { stage: Stage::Draining, connections: 0, left_s: 10 });
        assert_eq!(at(1_000, 0).stage, Stage::Drained);
        assert_eq!(at(9_500, 2), Progress { stage: Stage::Draining, connections: 2, left_s: 1 });
        assert_eq!(at(10_000, 2), Progress { stage: Stage::OutOfTime, connections: 2, left_s: 0 });
        let patient = Drain::begin(began, None);
        assert_eq!(patient.progress(began + Duration::from_secs(80_000), 1).stage, Stage::Draining);
    }
}
