//! What stands on the screen: rows of the view, their order, what is filtered, and what keys do to it. Knows no terminal.

use std::{collections::BTreeMap, net::IpAddr, ops::ControlFlow};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use vipa_protocol::{
    Eligibility,
    admin::{DistributionRow, TargetStatus, VipaStatus},
    meaning::meaning_of,
};

use super::sample::Sample;
use crate::{
    rates::{Rates, rate_words},
    show,
    table::grouped,
};

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    /// VIPAs: who owns each, its targets and connections
    Vipas,
    /// Targets: fit or why not, weight, share, connections
    Targets,
    /// Packets that were dropped or answered here, a second, and what to do about it
    Drops,
    /// Workers: packets a second of each
    Workers,
}

impl View {
    pub(crate) const ALL: [Self; 4] = [Self::Vipas, Self::Targets, Self::Drops, Self::Workers];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vipas => "VIPAs",
            Self::Targets => "targets",
            Self::Drops => "drops",
            Self::Workers => "workers",
        }
    }

    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Vipas => VIPAS,
            Self::Targets => TARGETS,
            Self::Drops => DROPS,
            Self::Workers => WORKERS,
        }
    }

    /// The column that rows are ordered by at first, and whether the largest comes first.
    const fn order(self) -> (usize, bool) {
        match self {
            Self::Vipas => (6, true),
            Self::Targets => (5, true),
            Self::Drops => (1, true),
            Self::Workers => (1, true),
        }
    }
}

/// A column: its heading, and how wide it is at least.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) width: u16,
    pub(crate) is_number: bool,
}

impl Column {
    const fn text(name: &'static str, width: u16) -> Self {
        Self { name, width, is_number: false }
    }

    const fn number(name: &'static str, width: u16) -> Self {
        Self { name, width, is_number: true }
    }
}

const VIPAS: &[Column] = &[
    Column::text("VIPA", 15),
    Column::text("here", 10),
    Column::text("owner", 10),
    Column::number("epoch", 5),
    Column::number("targets", 7),
    Column::number("fit", 3),
    Column::number("connections", 11),
];
const TARGETS: &[Column] = &[
    Column::text("target", 15),
    Column::text("node", 8),
    Column::text("service", 22),
    Column::number("weight", 6),
    Column::number("serves", 6),
    Column::number("connections", 11),
    Column::text("new connections", 24),
];
const DROPS: &[Column] = &[
    Column::text("counter", 24),
    Column::number("a second", 10),
    Column::number("total", 13),
    Column::text("what to do", 40),
];
const WORKERS: &[Column] = &[
    Column::number("worker", 6),
    Column::number("in/s", 12),
    Column::number("forwarded/s", 12),
    Column::number("answered/s", 12),
    Column::number("dropped/s", 12),
    Column::number("in", 16),
];

/// What a cell says, and what it is ordered by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScreenCell {
    pub(crate) text: String,
    number: f64,
}

impl ScreenCell {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: 0.0 }
    }

    fn count(count: u64) -> Self {
        Self { text: grouped(count), number: count as f64 }
    }

    fn rate(rate: f64) -> Self {
        Self { text: rate_words(rate + 0.0), number: rate }
    }
}

/// How much an operator should look at a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Warning,
    Bad,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) cells: Vec<ScreenCell>,
    pub(crate) tone: Tone,
}

pub(crate) struct Screen {
    pub(crate) view: View,
    /// By view: the column rows are ordered by, and whether the largest comes first.
    orders: BTreeMap<&'static str, (usize, bool)>,
    pub(crate) selected: usize,
    pub(crate) is_helping: bool,
    pub(crate) filter: String,
    /// The filter is being typed.
    pub(crate) is_typing: bool,
    pub(crate) is_paused: bool,
    pub(crate) sample: Option<Sample>,
    pub(crate) rates: Option<Rates>,
    /// Why the last reading failed.
    pub(crate) failure: Option<String>,
}

impl Screen {
    pub(crate) fn new(view: View) -> Self {
        Self {
            view,
            orders: BTreeMap::new(),
            selected: 0,
            is_helping: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            sample: None,
            rates: None,
            failure: None,
        }
    }

    /// Takes a reading in.
    pub(crate) fn update(&mut self, sample: Sample) {
        self.failure = None;
        if self.is_paused {
            return;
        }
        if let Some(before) = &self.sample {
            self.rates = Rates::between(&before.counters, &sample.counters);
        }
        self.sample = Some(sample);
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// The column that rows are ordered by, and whether the largest comes first.
    pub(crate) fn order(&self) -> (usize, bool) {
        self.orders.get(self.view.name()).copied().unwrap_or(self.view.order())
    }

    /// The rows as they stand on the screen.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let Some(sample) = &self.sample else { return Vec::new() };
        let mut rows = match self.view {
            View::Vipas => sample.status.vipas.iter().map(|vipa| vipa_row(vipa, sample)).collect(),
            View::Targets => target_rows(sample),
            View::Drops => self.drop_rows(sample),
            View::Workers => self.worker_rows(sample),
        };
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted)));
        let (column, descends) = self.order();
        let is_number = self.view.columns()[column].is_number;
        rows.sort_by(|one, other| {
            let (one, other) = (&one.cells[column], &other.cells[column]);
            let order = if is_number { one.number.total_cmp(&other.number) } else { natural(&one.text, &other.text) };
            if descends { order.reverse() } else { order }
        });
        rows
    }

    fn drop_rows(&self, sample: &Sample) -> Vec<Row> {
        let is_shown = |name: &str| name.starts_with("dropped.") || name.starts_with("replied.");
        let counted = sample.counters.total.iter().filter(|(name, count)| is_shown(name) && **count > 0);
        counted
            .map(|(name, count)| {
                let rate = self.rates.as_ref().map_or(0.0, |rates| rates.of(name));
                let remedy = meaning_of(name).map(|meaning| meaning.remedy).unwrap_or_default();
                let tone = match (rate > 0.0, remedy.is_empty() || name.starts_with("replied.")) {
                    (true, false) => Tone::Bad,
                    (true, true) => Tone::Warning,
                    (false, _) => Tone::Plain,
                };
                Row {
                    cells: vec![
                        ScreenCell::text(name),
                        ScreenCell::rate(rate),
                        ScreenCell::count(*count),
                        ScreenCell::text(remedy),
                    ],
                    tone,
                }
            })
            .collect()
    }

    fn worker_rows(&self, sample: &Sample) -> Vec<Row> {
        let row = |(index, counted): (usize, &BTreeMap<String, u64>)| {
            let rates = self.rates.as_ref().and_then(|rates| rates.workers.get(index));
            let rate = |prefix: &str| -> f64 {
                let of = rates.into_iter().flatten().filter(|(name, _)| name.starts_with(prefix));
                of.map(|(_, rate)| rate).sum()
            };
            let cells = vec![
                ScreenCell::count(index as u64),
                ScreenCell::rate(rate("received")),
                ScreenCell::rate(rate("forwarded")),
                ScreenCell::rate(rate("replied.")),
                ScreenCell::rate(rate("dropped.")),
                ScreenCell::count(counted.get("received").copied().unwrap_or_default()),
            ];
            Row { cells, tone: Tone::Plain }
        };
        sample.counters.workers.iter().enumerate().map(row).collect()
    }

    /// What a key does; break: the operator has seen enough.
    pub(crate) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if self.is_typing {
            match key.code {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(character) if self.filter.len() < 64 => self.filter.push(character),
                _ => {}
            }
            self.selected = 0;
            return ControlFlow::Continue(());
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return ControlFlow::Break(()),
            KeyCode::Char('q') | KeyCode::F(10) if !self.is_helping => return ControlFlow::Break(()),
            // Any key leaves the help.
            _ if self.is_helping => self.is_helping = false,
            KeyCode::F(1) | KeyCode::Char('h' | '?') => self.is_helping = true,
            KeyCode::Tab => self.turn_to(1),
            KeyCode::BackTab => self.turn_to(View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.show_view(View::ALL[digit as usize - '1' as usize]),
            KeyCode::F(4) | KeyCode::Char('/' | '\\') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::F(6) | KeyCode::Char('>' | '.') => self.order_by(1),
            KeyCode::Char('<' | ',') => self.order_by(self.view.columns().len() - 1),
            KeyCode::Char('I') => {
                let (column, descends) = self.order();
                self.orders.insert(self.view.name(), (column, !descends));
            }
            KeyCode::Char('Z' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected += 1,
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.selected += 10,
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = usize::MAX,
            _ => {}
        }
        self.selected = self.selected.min(self.rows().len().saturating_sub(1));
        ControlFlow::Continue(())
    }

    fn turn_to(&mut self, further: usize) {
        let place = View::ALL.iter().position(|view| *view == self.view).unwrap_or_default();
        self.show_view(View::ALL[(place + further) % View::ALL.len()]);
    }

    fn show_view(&mut self, view: View) {
        (self.view, self.selected) = (view, 0);
    }

    /// The largest come first of a column of numbers, the first by name of others.
    fn order_by(&mut self, further: usize) {
        let columns = self.view.columns();
        let column = (self.order().0 + further) % columns.len();
        self.orders.insert(self.view.name(), (column, columns[column].is_number));
    }
}

fn vipa_row(vipa: &VipaStatus, sample: &Sample) -> Row {
    let VipaStatus { address, epoch, stance, owner, fenced, targets, connections, .. } = vipa;
    let tone = match (owner, fenced) {
        (None, _) => Tone::Bad,
        (_, true) => Tone::Bad,
        _ if targets.iter().any(|target: &TargetStatus| !target.linked) => Tone::Warning,
        _ => Tone::Plain,
    };
    let fit = sample
        .distribution
        .vipas
        .iter()
        .filter(|of| of.vipa == *address)
        .flat_map(|vipa| &vipa.services)
        .flat_map(|service| &service.targets)
        .filter(|row| row.fitness == Eligibility::Fit)
        .map(|row| row.target)
        .collect::<std::collections::BTreeSet<IpAddr>>();
    let here = if *fenced { "FENCED" } else { show::stance_word(*stance) };
    let cells = vec![
        ScreenCell::text(address.to_string()),
        ScreenCell::text(here),
        ScreenCell::text(owner.as_ref().map_or_else(|| "NOBODY".into(), ToString::to_string)),
        ScreenCell::count(epoch.0),
        ScreenCell::count(targets.len() as u64),
        ScreenCell::count(fit.len() as u64),
        ScreenCell::count(*connections),
    ];
    Row { cells, tone }
}

fn target_rows(sample: &Sample) -> Vec<Row> {
    let mut rows = Vec::new();
    for vipa in &sample.distribution.vipas {
        for service in &vipa.services {
            let protocol = service.service.protocol.name();
            let name = format!("{} {protocol}/{}", vipa.vipa, service.service.ports);
            for row in &service.targets {
                let DistributionRow { target, node, fitness, chosen, weight, connections, responsiveness, .. } = row;
                let (gets, tone) = match (fitness, chosen) {
                    (Eligibility::Fit, _) => ("yes".into(), Tone::Plain),
                    (fitness, true) => (format!("the last resort: {fitness}"), Tone::Warning),
                    (fitness @ (Eligibility::Quiesced | Eligibility::Draining), _) => {
                        (format!("none: {fitness}"), Tone::Warning)
                    }
                    (fitness, _) => (format!("none: {fitness}"), Tone::Bad),
                };
                let serves = responsiveness.percent();
                rows.push(Row {
                    cells: vec![
                        ScreenCell::text(target.to_string()),
                        ScreenCell::text(node.as_ref().map_or("-", |node| node.as_str())),
                        ScreenCell::text(&name),
                        ScreenCell::count((*weight).into()),
                        ScreenCell {
                            text: serves.map_or_else(|| "-".into(), |percent| format!("{percent} %")),
                            number: serves.map_or(-1.0, f64::from),
                        },
                        ScreenCell::count(*connections),
                        ScreenCell::text(gets),
                    ],
                    tone,
                });
            }
        }
    }
    rows
}

/// Addresses by their number, all else by its letters.
fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

/// A number with its thousands' letter: `0`, `950`, `1.5k`, `12M`, `3.1G`.
pub(crate) fn short(number: f64) -> String {
    // The sum of nothing is minus zero.
    let mut scaled = number + 0.0;
    for unit in ["", "k", "M", "G"] {
        if scaled < 999.5 {
            return if scaled < 9.95 && !unit.is_empty() {
                format!("{scaled:.1}{unit}")
            } else {
                format!("{scaled:.0}{unit}")
            };
        }
        scaled /= 1_000.0;
    }
    format!("{scaled:.1}T")
}
