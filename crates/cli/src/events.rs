//! `vipactl events`: what happened in the cluster, and what happens while it is watched.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use clap::Args;
use vipa_model::{NodeName, calendar::parse_span, listed};
use vipa_protocol::{
    EventLevel,
    admin::{Answer, Request},
    event::{EventRow, Events},
};

use crate::ask;

/// How often a watched cluster is asked.
const LOOK: Duration = Duration::from_secs(1);
/// Clocks of routers may differ by so much, and an event be written so late, and still be shown while watching.
const OVERLAP: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Go on showing what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what happened within this time, such as 30s, 10m, 1h or 7d; at most 30 days are kept
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    since: Duration,
    /// Only what concerns this VIPA
    #[arg(long, value_name = "ADDRESS")]
    vipa: Option<IpAddr>,
}

/// Prints what happened, and what happens.
pub(crate) fn show(socket: &Path, json: bool, arguments: &Arguments) -> anyhow::Result<String> {
    let Arguments { follow, since, vipa } = arguments;
    let mut events = ask_since(socket, *since, *vipa)?;
    if !follow {
        return if json {
            Ok(serde_json::to_string(&events).context("cannot write JSON")? + "\n")
        } else {
            text(&events)
        };
    }
    let mut shown = Shown::default();
    loop {
        if let Err(error) = print(&mut shown, &events, json) {
            // Whoever read us has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(String::new()) } else { Err(error.into()) };
        }
        sleep(LOOK);
        events = match ask_since(socket, OVERLAP, *vipa) {
            Ok(events) => events,
            // A router that is restarted, or that is being upgraded, comes back.
            Err(error) => {
                shown.remark(&format!("{error:#}"));
                continue;
            }
        };
    }
}

fn ask_since(socket: &Path, since: Duration, vipa: Option<IpAddr>) -> anyhow::Result<Events> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_unix_ms = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or_default();
    match ask::ask(socket, &Request::Events { since_unix_ms, vipa }, &mut |_| {})? {
        Answer::Events(events) => Ok(events),
        _ => bail!("the router answers another question"),
    }
}

/// What was shown while watching.
#[derive(Debug, Default)]
struct Shown {
    events: BTreeSet<(u64, NodeName, u64)>,
    remark: String,
}

impl Shown {
    /// Those that are new, in their order.
    fn take_new<'a>(&mut self, events: &'a Events) -> Vec<&'a EventRow> {
        let latest = events.events.iter().map(|row| row.event.unix_ms).max().unwrap_or_default();
        let id = |row: &EventRow| (row.event.unix_ms, row.event.node.clone(), row.event.number);
        let new = events.events.iter().filter(|row| self.events.insert(id(row))).collect();
        // What is older than anything that is asked for again need not be remembered.
        let oldest = latest.saturating_sub(10 * OVERLAP.as_millis() as u64);
        self.events.retain(|(unix_ms, ..)| *unix_ms >= oldest);
        new
    }

    /// On standard error, once for as long as it stays the same.
    fn remark(&mut self, remark: &str) {
        if self.remark != remark {
            eprintln!("vipactl: {remark}");
            remark.clone_into(&mut self.remark);
        }
    }
}

fn print(shown: &mut Shown, events: &Events, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for row in shown.take_new(events) {
        if json {
            serde_json::to_writer(&mut out, row)?;
            out.write_all(b"\n")?;
        } else {
            writeln!(out, "{}", line(row))?;
        }
    }
    out.flush()?;
    if let Some(remark) = missing(events) {
        shown.remark(&remark);
    }
    Ok(())
}

fn text(events: &Events) -> anyhow::Result<String> {
    let mut out = String::new();
    if events.cut {
        writeln!(out, "(there were more; ask for a shorter time with --since, or for one VIPA with --vipa)")?;
    }
    for row in &events.events {
        writeln!(out, "{}", line(row))?;
    }
    if events.events.is_empty() {
        writeln!(out, "nothing has happened in that time")?;
    }
    if let Some(remark) = missing(events) {
        writeln!(out, "({remark})")?;
    }
    Ok(out)
}

fn line(row: &EventRow) -> String {
    let level = match row.level {
        EventLevel::News => "",
        EventLevel::Warning => "WARNING: ",
        EventLevel::Fault => "FAULT: ",
    };
    format!("{}  {}  {level}{}", row.time, row.event.node, row.sentence)
}

fn missing(events: &Events) -> Option<String> {
    let silent = listed(&events.silent);
    (!silent.is_empty()).then(|| format!("{silent} did not answer: what only they saw is missing"))
}

#[cfg(test)]
mod tests {
    use vipa_protocol::{ClusterEvent, EventKind};

    use super::*;

    fn events(times: &[u64]) -> Events {
        let row = |unix_ms: &u64| {
            let what = EventKind::Link { peer: "r2".parse().unwrap(), up: true };
            EventRow::from(ClusterEvent { unix_ms: *unix_ms, node: "r1".parse().unwrap(), number: *unix_ms, what })
        };
        Events { events: times.iter().map(row).collect(), cut: false, silent: Vec::new() }
    }

    #[test]
    fn an_event_is_shown_once_however_often_it_is_told() {
        let mut shown = Shown::default();
        let mut new = |times: &[u64]| {
            let events = events(times);
            shown.take_new(&events).iter().map(|row| row.event.unix_ms).collect::<Vec<_>>()
        };
        assert_eq!(new(&[5, 7]), [5, 7]);
        assert_eq!(new(&[5, 6, 7, 9]), [6, 9]);
        assert!(new(&[5, 6, 7, 9]).is_empty());
        assert_eq!(new(&[1_000_000]), [1_000_000]);
        assert_eq!(shown.events.len(), 1, "what is long past is forgotten");
    }
}
