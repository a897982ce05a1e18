//! Where in the file something stands, for rules that another room knows.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Port, Vipa};

/// Finds what does not fit between ports and VIPAs that are each valid.
pub type Fit = fn(&[Port], &[Vipa]) -> Vec<Misfit>;

/// Something that does not fit, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub place: ConfigPlace,
    pub message: String,
}

/// A value of the file. Indexes count from 0, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigPlace {
    /// A key of a `[[port]]`.
    Port { port: usize, key: &'static str },
    /// A candidate of a `[[vipa.service]]`.
    Candidate { vipa: usize, service: usize, candidate: usize },
}

impl ConfigPlace {
    /// Its bytes, or those of the nearest thing around it that is written in the file.
    pub(super) fn span(self, tree: &Spanned<DeTable<'_>>) -> Range<usize> {
        let mut at = Walk { span: tree.span(), table: Some(tree.get_ref()), value: None };
        match self {
            Self::Port { port, key } => at.key("port").index(port).key(key),
            Self::Candidate { vipa, service, candidate } => {
                at.key("vipa").index(vipa).key("service").index(service).key("candidates").index(candidate)
            }
        };
        at.span
    }
}

struct Walk<'d> {
    span: Range<usize>,
    table: Option<&'d DeTable<'d>>,
    value: Option<&'d Spanned<DeValue<'d>>>,
}

impl<'d> Walk<'d> {
    fn key(&mut self, key: &str) -> &mut Self {
        let value = self.table.and_then(|table| table.get(key));
        self.go(value)
    }

    fn index(&mut self, index: usize) -> &mut Self {
        let value = self.value.and_then(|value| value.get_ref().as_array()).and_then(|array| array.get(index));
        self.go(value)
    }

    fn go(&mut self, value: Option<&'d Spanned<DeValue<'d>>>) -> &mut Self {
        if let Some(value) = value {
            self.span = value.span();
        }
        self.table = value.and_then(|value| value.get_ref().as_table());
        self.value = value;
        self
    }
}
