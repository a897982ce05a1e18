//! Which targets' reports are complete. A way to a target serves every VIPA, so a target counts as linked when what it holds is
//! known of each VIPA that it has been asked about.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use vipa_model::VipaId;

#[derive(Debug, Default)]
pub(crate) struct Completeness(BTreeMap<IpAddr, Target>);

#[derive(Debug, Default)]
struct Target {
    vipas: BTreeMap<VipaId, bool>,
    incomplete: usize,
}

impl Target {
    fn is_linked(&self) -> bool {
        self.incomplete == 0 && !self.vipas.is_empty()
    }

    fn set(&mut self, vipa: VipaId, complete: bool) {
        let before = self.vipas.insert(vipa, complete);
        self.incomplete -= usize::from(before == Some(false));
        self.incomplete += usize::from(!complete);
    }

    fn forget(&mut self, vipa: VipaId) {
        self.incomplete -= usize::from(self.vipas.remove(&vipa) == Some(false));
    }
}

impl Completeness {
    /// The target's reports on this VIPA are complete from now on, or no longer. Says whether the target counts as linked, when
    /// that has changed.
    pub(crate) fn set(&mut self, vipa: VipaId, target: IpAddr, complete: bool) -> Option<bool> {
        let entry = match self.0.entry(target) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Target::default()),
        };
        let before = entry.is_linked();
        entry.set(vipa, complete);
        (entry.is_linked() != before).then_some(!before)
    }

    pub(crate) fn is_linked(&self, target: IpAddr) -> bool {
        self.0.get(&target).is_some_and(Target::is_linked)
    }

    /// The VIPA is gone. Says which targets count as linked since, or no longer.
    pub(crate) fn forget(&mut self, vipa: VipaId) -> Vec<(IpAddr, bool)> {
        let mut changed = Vec::new();
        self.0.retain(|address, target| {
            let before = target.is_linked();
            target.forget(vipa);
            if target.is_linked() != before {
                changed.push((*address, !before));
            }
            !target.vipas.is_empty()
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));

    #[test]
    fn a_target_is_linked_when_it_has_reported_completely_on_every_vipa() {
        let mut targets = Completeness::default();
        assert_eq!(targets.set(VipaId(0), T1, false), None);
        assert_eq!(targets.set(VipaId(0), T1, true), Some(true));
        assert_eq!(targets.set(VipaId(1), T1, false), Some(false));
        assert!(!targets.is_linked(T1));
        assert_eq!(targets.set(VipaId(1), T1, true), Some(true));
        assert_eq!(targets.set(VipaId(1), T1, true), None);
        assert_eq!(targets.set(VipaId(1), T1, false), Some(false));
        assert_eq!(targets.forget(VipaId(1)), [(T1, true)], "what is gone is not missed");
        assert_eq!(targets.forget(VipaId(0)), [(T1, false)]);
        assert!(targets.0.is_empty());
    }
}
