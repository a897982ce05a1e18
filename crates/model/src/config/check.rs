//! `[[agent.check]]`, and the check of a candidate without an agent.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    problems::Problems,
    read::{At, Section, Value, choice, list, number, parsed, text},
};
use crate::{Check, Pace, Probe, Question};

const ADDRESS: &str = "an IP address and a port such as \"127.0.0.1:8080\"";
/// Checks of one target: `vipa_protocol::load::MAX_CHECKS`.
const MAX_CHECKS: usize = 64;
const LONGEST_INTERVAL_MS: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Command,
    Ping,
}

pub(super) fn read_all(problems: &mut Problems, sections: Vec<Section<'_>>) -> Option<Vec<Check>> {
    let count = sections.len();
    let mut checks: Vec<Check> = Vec::new();
    for section in sections {
        let span = section.span.clone();
        let Some(check) = read(problems, section) else { continue };
        if checks.iter().any(|other| other.name == check.name) {
            problems.add::<()>(span.clone(), format!("another check is called {:?}; name each otherwise", check.name));
        }
        if checks.len() == MAX_CHECKS {
            problems.add::<()>(span, format!("a target has at most {MAX_CHECKS} checks; let one command make several"));
        }
        checks.push(check);
    }
    (checks.len() == count).then_some(checks)
}

fn read(problems: &mut Problems, mut section: Section<'_>) -> Option<Check> {
    let name = section.required(problems, "name", "name = \"web\"", name);
    let kinds = [("tcp", Kind::Tcp), ("http", Kind::Http), ("command", Kind::Command)];
    let kind = section.required(problems, "probe", "probe = \"http\"", choice(&kinds));
    let port = section.optional(problems, "port", number(1..=u16::MAX, "a port"));
    let address = section.optional(problems, "address", parsed::<SocketAddr>(ADDRESS));
    let (path, statuses) = read_http(problems, &mut section);
    let command = section.optional(problems, "command", command);
    let pace = read_pace(problems, &mut section);
    section.finish(problems);

    let (kind, port, address, command) = (kind?.value, port?.map(|port| port.value), address?, command?);
    let (path, statuses) = (path?, statuses?);
    let here = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let address = address.map(|address| address.value).or_else(|| port.map(here));
    if kind != Kind::Http
        && let Some(span) = path.as_ref().map(|path| &path.span).or(statuses.as_ref().map(|statuses| &statuses.span))
    {
        problems.add::<()>(span.clone(), "only probe = \"http\" asks for a path and looks at the status");
    }
    let no_address = "name the `port` it is about, or the `address` to connect to, such as \"127.0.0.1:8080\"";
    let probe = match kind {
        Kind::Tcp => Probe::Connect(address.or_else(|| problems.add(section.span.clone(), no_address))?),
        Kind::Http => Probe::Http {
            address: address.or_else(|| problems.add(section.span.clone(), no_address))?,
            path: path.map_or_else(|| "/".into(), |path| path.value),
            statuses: statuses.map_or((200, 399), |statuses| statuses.value),
        },
        Kind::Ping => unreachable!("an agent's check is none of these words"),
        Kind::Command => {
            let missing = "probe = \"command\" needs `command`, such as [\"/usr/local/bin/ready\", \"--fast\"]";
            Probe::Command(command.map(|c| c.value).or_else(|| problems.add(section.span.clone(), missing))?)
        }
    };
    Some(Check { name: name?.value, probe, port, pace: pace? })
}

/// What `path` and `status` say, where they stand.
#[expect(clippy::type_complexity, reason = "as `Section::optional` gives it, twice")]
fn read_http(
    problems: &mut Problems,
    section: &mut Section<'_>,
) -> (Option<Option<At<String>>>, Option<Option<At<(u16, u16)>>>) {
    (section.optional(problems, "path", path), section.optional(problems, "status", statuses))
}

/// `check = { probe = "http", path = "/health" }` of a candidate; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    kind: Kind,
    port: Option<u16>,
    path: String,
    statuses: (u16, u16),
    pub(super) pace: Pace,
}

pub(super) fn read_question(problems: &mut Problems, value: Option<&Value<'_>>) -> Option<Asked> {
    let mut section = Section::of("vipa.service.candidates.check", value, problems);
    let kinds = [("tcp", Kind::Tcp), ("http", Kind::Http), ("ping", Kind::Ping)];
    let kind = section.or(problems, "probe", Kind::Tcp, choice(&kinds));
    let port = section.optional(problems, "port", number(1..=u16::MAX, "a port"));
    let (path, statuses) = read_http(problems, &mut section);
    let pace = read_pace(problems, &mut section);
    section.finish(problems);
    Some(Asked {
        kind: kind?.value,
        port: port?.map(|port| port.value),
        path: path?.map_or_else(|| "/".into(), |path| path.value),
        statuses: statuses?.map_or((200, 399), |statuses| statuses.value),
        pace: pace?,
    })
}

impl Asked {
    /// Of a target whose service is on `own` there; `None`: on several, and none is named.
    pub(super) fn question(self, own: Option<u16>) -> Option<Question> {
        let Self { kind, port, path, statuses, pace: _ } = self;
        Some(match kind {
            Kind::Ping => Question::Ping,
            Kind::Tcp => Question::Tcp(port.or(own)?),
            Kind::Http => Question::Http { port: port.or(own)?, path, statuses },
            Kind::Command => unreachable!("a candidate's check is none of these words"),
        })
    }
}

fn read_pace(problems: &mut Problems, section: &mut Section<'_>) -> Option<Pace> {
    let interval =
        section.or(problems, "interval_ms", 1_000, number(100..=LONGEST_INTERVAL_MS, "a number of milliseconds"));
    let interval_ms = interval.as_ref().map_or(LONGEST_INTERVAL_MS, |interval| interval.value);
    let what = "a number of milliseconds (at most interval_ms)";
    let timeout = section.or(problems, "timeout_ms", interval_ms.min(1_000), number(10..=interval_ms, what));
    let rise = section.or(problems, "rise", 2, number(1..=1_000, "a number of successes"));
    let fall = section.or(problems, "fall", 3, number(1..=1_000, "a number of failures"));
    Some(Pace {
        interval: Duration::from_millis(interval?.value),
        timeout: Duration::from_millis(timeout?.value),
        rise: rise?.value,
        fall: fall?.value,
    })
}

fn name(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let name = text(problems, value)?;
    let fits = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fits { Some(name) } else { problems.add(value.span(), "a check's name has at most 32 printable characters") }
}

fn path(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let path = text(problems, value)?;
    let fits = path.starts_with('/') && path.len() <= 1_024 && path.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Some(path)
    } else {
        problems.add(value.span(), "a path begins with '/' and has no spaces, such as \"/health\"")
    }
}

/// `200`, `"200"` or `"200-399"`.
fn statuses(problems: &mut Problems, value: &Value<'_>) -> Option<(u16, u16)> {
    let status = || number(100..=599, "an HTTP status");
    let Some(text) = value.get_ref().as_str() else {
        return status()(problems, value).map(|status| (status, status));
    };
    let read = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = match text.split_once('-') {
        None => read(text).map(|status| (status, status)),
        Some((first, last)) => read(first).zip(read(last)).filter(|(first, last)| first <= last),
    };
    range.or_else(|| problems.add(value.span(), "statuses are 200 or \"200-399\", the lower first"))
}

/// A list whose words may repeat.
fn command(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<String>> {
    let Some(array) = value.get_ref().as_array() else {
        // Says what is expected.
        return list(text)(problems, value);
    };
    let words: Option<Vec<String>> = array.iter().map(|word| text(problems, word)).collect();
    let words = words?;
    match words.first() {
        Some(program) if program.starts_with('/') => Some(words),
        _ => problems.add(value.span(), "a command is a list, its first word a program's whole path"),
    }
}
