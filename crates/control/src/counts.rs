//! What control counts, beside the workers.

use std::cell::Cell;

use crate::table::Taken;

/// By `named`'s names, which docs/counters.md explains.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reports: Taken,
    pub(crate) reloads: u64,
    pub(crate) reloads_refused: u64,
    pub(crate) links_refused: u64,
    pub(crate) frames_unsent: Cell<u64>,
}

impl Counts {
    pub(crate) fn named(&self) -> [(String, u64); 8] {
        let Taken { opened, closed, swept, refused } = self.reports;
        [
            ("report.opened".into(), opened),
            ("report.closed".into(), closed),
            ("report.swept".into(), swept),
            ("report.refused".into(), refused),
            ("reload.applied".into(), self.reloads),
            ("reload.refused".into(), self.reloads_refused),
            ("link.refused".into(), self.links_refused),
            ("frame.unsent".into(), self.frames_unsent.get()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_controls_is_documented() {
        let page = include_str!("../../../docs/counters.md");
        let (_, of_control) = page.split_once("\n## Control\n").expect("control's counters have a chapter");
        for (name, _) in Counts::default().named() {
            assert!(of_control.contains(&format!("| `{name}` |")), "docs/counters.md does not say what {name} is");
        }
    }
}
