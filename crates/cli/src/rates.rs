//! Counts, and how fast they grow: from two answers of a router, by the router's own clock.
//!
//! An answer says when its counters were read. So a rate is that of the time between two readings, however long an answer is on its way
//! and however late it is read here.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use vipa_protocol::{
    admin::{Answer, Counters, Request},
    meaning::meaning_of,
};

use crate::{
    ask,
    table::{Side, Table, grouped},
    width::wrap,
};

/// What of the counters is shown, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Shown {
    /// Show how much is counted a second, over this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) rate: Option<Duration>,
    /// Leave out what has not been counted at all or, with --rate, in that time
    #[arg(long)]
    pub(crate) nonzero: bool,
    /// Say what each counter means and what to do about it
    #[arg(long)]
    pub(crate) why: bool,
}

/// `1s`, `500ms`, `2m`, or a number of seconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 500ms, 1s, 2m or 1h");
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = number
        * match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            _ => return Err(wrong()),
        };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time >= Duration::from_millis(10) && time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err(format!("{text} is not between 10ms and 24h")),
    }
}

/// The counters of a router now.
pub(crate) fn read(socket: &Path) -> anyhow::Result<Counters> {
    match ask::ask(socket, &Request::Counters, &mut |_| {})? {
        Answer::Counters(counters) => Ok(counters),
        _ => bail!("the router answers another question"),
    }
}

/// The counters of a router and, with `rate`, what was counted a second over that time.
pub(crate) fn read_counters(socket: &Path, rate: Option<Duration>) -> anyhow::Result<(Counters, Option<Rates>)> {
    let before = read(socket)?;
    let Some(time) = rate else { return Ok((before, None)) };
    std::thread::sleep(time);
    let now = read(socket)?;
    let rates = Rates::between(&before, &now).context("the router has started anew meanwhile; ask again")?;
    Ok((now, Some(rates)))
}

/// What grew a second between two readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Between the readings, by the router's clock, milliseconds.
    pub(crate) over_ms: f64,
    /// By counter, a second. A count that can fall is left out.
    pub(crate) total: Vec<(String, f64)>,
    pub(crate) workers: Vec<Vec<(String, f64)>>,
}

impl Rates {
    /// `None`: the second was not read after the first, by the same life of the router.
    pub(crate) fn between(before: &Counters, now: &Counters) -> Option<Self> {
        let over_us = now.at_us.checked_sub(before.at_us).filter(|over| *over > 0)?;
        let seconds = over_us as f64 / 1e6;
        let of = |before: &std::collections::BTreeMap<String, u64>, now: &std::collections::BTreeMap<String, u64>| {
            let grown = |(name, now): (&String, &u64)| {
                let before = before.get(name).copied().unwrap_or_default();
                let grown = now.saturating_sub(before) as f64 / seconds;
                (!FALLING.contains(&name.as_str())).then(|| (name.clone(), grown))
            };
            now.iter().filter_map(grown).collect::<Vec<_>>()
        };
        let empty = std::collections::BTreeMap::new();
        let workers = now.workers.iter().enumerate();
        let workers = workers.map(|(index, now)| of(before.workers.get(index).unwrap_or(&empty), now)).collect();
        Some(Self { over_ms: over_us as f64 / 1e3, total: of(&before.total, &now.total), workers })
    }

    /// For JSON: by name, as the counters are.
    pub(crate) fn as_maps(&self) -> serde_json::Value {
        let map = |rates: &[(String, f64)]| -> serde_json::Map<String, serde_json::Value> {
            rates.iter().map(|(name, rate)| (name.clone(), serde_json::json!(rate))).collect()
        };
        let workers: Vec<_> = self.workers.iter().map(|worker| map(worker)).collect();
        serde_json::json!({ "over_ms": self.over_ms, "total": map(&self.total), "workers": workers })
    }

    pub(crate) fn of(&self, name: &str) -> f64 {
        self.total.iter().find(|(of, _)| of == name).map_or(0.0, |(_, rate)| *rate)
    }
}

/// Counters that can fall have no rate.
const FALLING: [&str; 1] = ["holding"];

/// A number a second, as short as it says something: `0`, `0.4`, `12`, `1,234,567`.
pub(crate) fn rate_words(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        ..0.05 => "<0.1".into(),
        ..10.0 => format!("{rate:.1}"),
        _ => grouped(rate.round() as u64),
    }
}

/// The counters as a person reads them.
pub(crate) fn show(out: &mut String, counters: &Counters, rates: Option<&Rates>, shown: Shown, width: usize) {
    let Shown { rate: _, nonzero, why } = shown;
    let several = counters.workers.len() > 1 && !why;
    let names: Vec<_> = (0..counters.workers.len()).map(|index| format!("worker {index}")).collect();
    let mut columns = vec![("counter", Side::Left), ("total", Side::Right)];
    if rates.is_some() {
        columns.push(("a second", Side::Right));
    }
    // With one worker its column would say the same again.
    if several {
        columns.extend(names.iter().map(|name| (name.as_str(), Side::Right)));
    }
    let mut table = Table::new("", &columns);
    let mut meant = Vec::new();
    for (name, value) in &counters.total {
        let rate = rates.map(|rates| rates.of(name));
        if nonzero && rate.unwrap_or(*value as f64) == 0.0 {
            continue;
        }
        let mut row = vec![name.clone(), grouped(*value)];
        row.extend(rate.map(|rate| if FALLING.contains(&name.as_str()) { "-".into() } else { rate_words(rate) }));
        if several {
            let counted = |(index, worker): (usize, &std::collections::BTreeMap<String, u64>)| match rates {
                None => worker.get(name).map_or_else(|| "-".into(), |value| grouped(*value)),
                Some(rates) => {
                    let rate = rates.workers[index].iter().find(|(of, _)| of == name);
                    rate.map_or_else(|| "-".into(), |(_, rate)| rate_words(*rate))
                }
            };
            row.extend(counters.workers.iter().enumerate().map(counted));
        }
        table.row(row);
        meant.push(name);
    }
    let mut text = String::new();
    table.print(&mut text);
    if !why {
        out.push_str(&text);
        return;
    }
    // Below each row what it means.
    let mut lines = text.lines();
    out.extend(lines.next().map(|heading| format!("{heading}\n")));
    for (line, name) in lines.zip(meant) {
        out.push_str(&format!("{line}\n"));
        let Some(meaning) = meaning_of(name) else { continue };
        let mut sentences = vec![meaning.counts];
        if !meaning.remedy.is_empty() {
            sentences.push(format!("what to do: {}", meaning.remedy));
        }
        for sentence in sentences {
            wrap(&sentence, width.saturating_sub(4)).iter().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(at_us: u64, total: &[(&str, u64)]) -> Counters {
        let total = total.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Counters { at_us, total, ..Counters::default() }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let ms = |text: &str| parse_time(text).map(|time| time.as_millis());
        assert_eq!(
            ["500ms", "1s", "2", "1.5s", "2m", "1h"].map(ms),
            [500, 1_000, 2_000, 1_500, 120_000, 3_600_000].map(Ok)
        );
        for wrong in ["", "s", "1w", "0", "-1s", "1ms", "25h", "1..s"] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_that_of_the_time_between_the_readings_of_the_router() {
        let before = counters(1_000_000, &[("received", 100), ("holding", 7)]);
        let now = counters(3_000_000, &[("forwarded", 3), ("received", 1_100), ("holding", 9)]);
        let rates = Rates::between(&before, &now).unwrap();
        assert_eq!((rates.of("received"), rates.of("forwarded"), rates.of("holding")), (500.0, 1.5, 0.0));
        assert_eq!(rates.over_ms, 2_000.0);
        assert_eq!(Rates::between(&now, &before), None, "another life of the router");
    }

    #[test]
    fn rates_are_as_short_as_they_say_something() {
        assert_eq!(
            [0.0, 0.01, 0.44, 9.96, 12.4, 1_234_567.8].map(rate_words),
            ["0", "<0.1", "0.4", "10.0", "12", "1,234,568"]
        );
    }
}
