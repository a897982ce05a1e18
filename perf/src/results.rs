//! What was measured, as a file and as a table.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    figure::{Case, Owed},
    machine::Machine,
};

/// Of the table that [`Row`]s make.
pub(crate) const TITLE: &str =
    "      case                                               owed     measured  unit             met";

/// `latest.json`, and where it is.
pub(crate) struct Results {
    folder: PathBuf,
    file: File,
}

#[derive(Deserialize, Serialize)]
struct File {
    machine: String,
    /// Of the newest figure.
    commit: String,
    figures: Vec<Row>,
}

/// One case, with what was owed.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) case: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    pub(crate) owed: f64,
    /// "at least" or "at most".
    owed_is: String,
    pub(crate) met: bool,
    /// What this one was measured of, since figures may be measured one at a time.
    commit: String,
    /// Further numbers, such as `ours_mpps`.
    #[serde(flatten)]
    pub(crate) beside: BTreeMap<String, f64>,
}

impl Results {
    /// Those of `folder` if they are of this machine, or none yet.
    pub(crate) fn open(folder: &Path, machine: &Machine) -> anyhow::Result<Self> {
        let text = fs::read_to_string(folder.join("latest.json")).unwrap_or_default();
        let known = serde_json::from_str::<File>(&text).ok().filter(|file| file.machine == machine.name);
        let figures = known.map(|file| file.figures).unwrap_or_default();
        Ok(Self { folder: folder.to_owned(), file: File { machine: machine.name.clone(), commit: commit(), figures } })
    }

    pub(crate) fn heading(&self) -> String {
        format!("{}\ncommit {}\n", self.file.machine, self.file.commit)
    }

    /// Takes the place of what was known of the figure; returns its rows.
    pub(crate) fn replace(&mut self, id: &str, cases: Vec<Case>) -> Vec<Row> {
        let rows: Vec<Row> = cases.into_iter().map(|case| Row::new(id, &self.file.commit, case)).collect();
        self.file.figures.retain(|row| row.id != id);
        self.file.figures.extend(rows.iter().cloned());
        self.file.figures.sort_by_key(|row| row.number());
        rows
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.file)? + "\n";
        self.save("latest.json", &text)
    }

    /// Writes a file beside `latest.json`.
    pub(crate) fn save(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The rows of one figure.
    pub(crate) fn of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Row> {
        self.file.figures.iter().filter(move |row| row.id == id)
    }

    pub(crate) fn summary(&self) -> String {
        let met = self.file.figures.iter().filter(|row| row.met).count();
        let path = self.folder.join("latest.json");
        format!("bench: {met} of {} figures met; {}", self.file.figures.len(), path.display())
    }
}

impl Row {
    fn new(id: &str, commit: &str, case: Case) -> Self {
        let Case { name, value, unit, owed, beside } = case;
        let (owed_is, bound) = match owed {
            Owed::AtLeast(bound) => ("at least", bound),
            Owed::AtMost(bound) => ("at most", bound),
        };
        Self {
            id: id.to_owned(),
            case: name,
            value: rounded(value),
            unit: unit.to_owned(),
            owed: bound,
            owed_is: owed_is.to_owned(),
            met: owed.is_met_by(value),
            commit: commit.to_owned(),
            beside: beside.into_iter().map(|(name, value)| (name.to_owned(), rounded(value))).collect(),
        }
    }

    /// Figures in the order of their numbers.
    fn number(&self) -> u32 {
        self.id.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(u32::MAX)
    }
}

/// A line of the table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, case, value, unit, owed, owed_is, met, .. } = self;
        let sign = if owed_is == "at least" { "≥" } else { "≤" };
        let owed = format!("{sign} {owed}");
        let met = if *met { "yes" } else { "NO" };
        write!(f, "{id:<4}  {case:<46} {owed:>10} {value:>12}  {unit:<16} {met}")
    }
}

/// Four significant digits: the rest is the machine's mood.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(digits.abs());
    if digits >= 0 { (value * scale).round() / scale } else { (value / scale).round() * scale }
}

/// What is measured, as git names it.
fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(rounded(0.643_219), 0.6432);
        assert_eq!(rounded(12_345.6), 12_350.0);
        assert_eq!(rounded(17.0), 17.0);
        assert_eq!(rounded(0.0), 0.0);
    }

    #[test]
    fn a_row_has_the_shape_that_is_promised() {
        let case = Case::new("direct, 1 M flows", 0.64, "ratio", Owed::AtLeast(0.6)).beside("ours_mpps", 12.1);
        let row = serde_json::to_value(Row::new("P1", "abc", case)).expect("a row is JSON");
        let shape = serde_json::json!({
            "id": "P1", "case": "direct, 1 M flows", "value": 0.64, "unit": "ratio", "owed": 0.6,
            "owed_is": "at least", "met": true, "commit": "abc", "ours_mpps": 12.1,
        });
        assert_eq!(row, shape);
    }
}
