//! Reading TOML's tree: sections whose keys are asked for by name, and one reader for each kind of value.
//!
//! A reader takes the problems and a value, and gives the value's meaning or notes what would be right.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problems::Problems;
use crate::is_host_address;

pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A value that remembers its place, for the rules between keys.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: std::ops::Range<usize>,
}

/// One TOML table being read. What was never asked for is unknown.
#[derive(Debug)]
pub(super) struct Section<'d> {
    /// As the documentation names it: `cluster`, `vipa.service`; empty at the top.
    path: &'static str,
    pub(super) span: std::ops::Range<usize>,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(super) fn top(table: &'d Spanned<DeTable<'d>>) -> Self {
        Self { path: "", span: 0..0, table: Some(table.get_ref()), asked: Vec::new() }
    }

    /// The section of a table, or an empty one where there is none or something else.
    pub(super) fn of(path: &'static str, value: Option<&'d Value<'d>>, problems: &mut Problems) -> Self {
        let (span, table) = match value {
            None => (0..0, None),
            Some(value) => {
                let table = value.get_ref().as_table();
                if table.is_none() {
                    problems.add::<()>(value.span(), format!("`{path}` is a section: write [{path}]"));
                }
                (value.span(), table)
            }
        };
        Self { path, span, table, asked: Vec::new() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `key`, unread.
    pub(super) fn get(&mut self, problems: &mut Problems, key: &'static str) -> Option<&'d Value<'d>> {
        self.asked.push(key);
        problems.keys.push(self.name(key));
        self.table.and_then(|table| table.get(key))
    }

    /// A key that must be there; `example` shows how it is written.
    pub(super) fn required<T>(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&mut Problems, &Value<'_>) -> Option<T>,
    ) -> Option<At<T>> {
        match self.get(problems, key) {
            Some(value) => Some(At { value: read(problems, value)?, span: value.span() }),
            None if self.table.is_none() => {
                problems.add(0..0, format!("section [{}] is missing; it needs `{key}`, such as {example}", self.path))
            }
            None => problems.add(self.span.clone(), format!("`{}` is missing; such as {example}", self.name(key))),
        }
    }

    /// A key that may be missing. The outer `None`: it is there and wrong.
    #[expect(clippy::option_option, reason = "wrong and missing are different, and wrong is noted already")]
    pub(super) fn optional<T>(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
        read: impl FnOnce(&mut Problems, &Value<'_>) -> Option<T>,
    ) -> Option<Option<At<T>>> {
        match self.get(problems, key) {
            None => Some(None),
            Some(value) => Some(Some(At { value: read(problems, value)?, span: value.span() })),
        }
    }

    /// A key with a default.
    pub(super) fn or<T>(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
        default: T,
        read: impl FnOnce(&mut Problems, &Value<'_>) -> Option<T>,
    ) -> Option<At<T>> {
        let span = self.span.clone();
        Some(self.optional(problems, key, read)?.unwrap_or(At { value: default, span }))
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
        path: &'static str,
    ) -> Vec<Section<'d>> {
        let Some(value) = self.get(problems, key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            problems.add::<()>(value.span(), format!("`{path}` may stand more than once: write [[{path}]]"));
            return Vec::new();
        };
        array.iter().map(|value| Section::of(path, Some(value), problems)).collect()
    }

    /// Every key of this table with its place and value, as they stand in the file, for tables whose keys are names.
    pub(super) fn entries(&mut self) -> Vec<(&'d str, std::ops::Range<usize>, &'d Value<'d>)> {
        let table = self.table.take().into_iter().flatten();
        let mut entries: Vec<_> = table.map(|(key, value)| (&**key.get_ref(), key.span(), value)).collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(&self, problems: &mut Problems) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let near = self.asked.iter().map(|known| (distance(known, name), known)).min();
            let advice = match near {
                Some((far, known)) if far <= 2 || known.starts_with(name) => format!("did you mean `{known}`?"),
                _ => format!("here may stand {}", quoted(&self.asked)),
            };
            let place = if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) };
            problems.add::<()>(key.span(), format!("unknown key `{name}`{place}; {advice}"));
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

pub(super) fn text(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    match value.get_ref().as_str() {
        Some("") => problems.add(value.span(), "this must not be empty"),
        Some(text) => Some(text.into()),
        None => wrong(problems, value, "a text in quotes"),
    }
}

/// A text in quotes that says a `T`; `what` names it, with an example.
pub(super) fn parsed<T: FromStr>(what: &str) -> impl Fn(&mut Problems, &Value<'_>) -> Option<T> {
    move |problems, value| match value.get_ref().as_str().map(str::parse) {
        Some(Ok(parsed)) => Some(parsed),
        _ => wrong(problems, value, what),
    }
}

/// A node's name. Its own error says what is allowed.
pub(super) fn node(problems: &mut Problems, value: &Value<'_>) -> Option<crate::NodeName> {
    let text = text(problems, value)?;
    text.parse().or_else(|error: crate::InvalidNodeName| problems.add(value.span(), error.to_string()).ok_or(())).ok()
}

pub(super) fn address(problems: &mut Problems, value: &Value<'_>) -> Option<IpAddr> {
    parsed("an IP address such as \"192.0.2.10\"")(problems, value)
}

/// An address packets are forwarded for or to.
pub(super) fn host(problems: &mut Problems, value: &Value<'_>) -> Option<IpAddr> {
    let address = address(problems, value)?;
    if !is_host_address(address) {
        let message = format!("{address} is no host's address; use one such as \"192.0.2.10\" or \"2001:db8::10\"");
        return problems.add(value.span(), message);
    }
    Some(address)
}

/// A run of addresses, or one.
pub(super) fn prefix(problems: &mut Problems, value: &Value<'_>) -> Option<IpNet> {
    let text = value.get_ref().as_str();
    let parsed = text.and_then(|text| text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?))));
    match parsed {
        Some(prefix) if prefix != prefix.trunc() => problems
            .add(value.span(), format!("{prefix} has bits beyond its length; did you mean \"{}\"?", prefix.trunc())),
        Some(prefix) => Some(prefix),
        None => wrong(problems, value, "a prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\""),
    }
}

pub(super) fn flag(problems: &mut Problems, value: &Value<'_>) -> Option<bool> {
    value.get_ref().as_bool().or_else(|| wrong(problems, value, "true or false"))
}

/// A whole number within `range`; `noun` says of what, such as "a number of milliseconds".
pub(super) fn number<T>(range: RangeInclusive<T>, noun: &str) -> impl Fn(&mut Problems, &Value<'_>) -> Option<T>
where
    T: TryFrom<i128> + PartialOrd + Display + Copy,
{
    move |problems, value| {
        let digits = value.get_ref().as_integer();
        let parsed = digits.and_then(|digits| i128::from_str_radix(digits.as_str(), digits.radix()).ok());
        let number = parsed.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
        let what = || format!("{noun} from {} to {}", range.start(), range.end());
        number.or_else(|| wrong(problems, value, &what()))
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(&mut Problems, &Value<'_>) -> Option<T> {
    move |problems, value| {
        let word = value.get_ref().as_str();
        let found = words.iter().find(|(name, _)| Some(*name) == word).map(|(_, meaning)| *meaning);
        let what = || {
            let names: Vec<_> = words.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            names.join(" or ")
        };
        found.or_else(|| wrong(problems, value, &what()))
    }
}

/// A list whose every element `read` reads; no two may be equal.
pub(super) fn list<T: PartialEq + Display>(
    read: impl Fn(&mut Problems, &Value<'_>) -> Option<T>,
) -> impl Fn(&mut Problems, &Value<'_>) -> Option<Vec<T>> {
    move |problems, value| {
        let Some(array) = value.get_ref().as_array() else {
            return wrong(problems, value, "a list in brackets [ ]");
        };
        let mut list = Vec::new();
        let mut complete = true;
        for element in array {
            match read(problems, element) {
                Some(item) if list.contains(&item) => {
                    complete = false;
                    problems.add::<()>(element.span(), format!("{item} is in this list already; name each once"));
                }
                Some(item) => list.push(item),
                None => complete = false,
            }
        }
        complete.then_some(list)
    }
}

fn wrong<T>(problems: &mut Problems, value: &Value<'_>, what: &str) -> Option<T> {
    problems.add(value.span(), format!("this must be {what}, and is {}", shown(value.get_ref())))
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(digits) => format!("the number {}", digits.as_str()),
        DeValue::Float(digits) => format!("the number {}", digits.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

pub(super) fn quoted(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}

/// Edits (insert, remove, replace a letter) between two words.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
