//! What a target has reported of one VIPA.

use std::net::IpAddr;

use vipa_model::{Epoch, Protocol};
use vipa_protocol::{Connections, Part, Position, Run, Standing};

#[derive(Clone, Debug)]
pub(super) struct TargetView {
    pub(super) address: IpAddr,
    pub(super) linked: bool,
    /// How far its log has been taken in. Survives the link.
    pub(super) seen: Option<Position>,
    /// What was asked for on this link.
    pub(super) asked: Option<(Epoch, Standing)>,
    /// The last `Associate` it answered in full on this link.
    pub(super) answered: Option<Epoch>,
    /// What it listens on; unknown until it says so on this link.
    pub(super) listening: Option<Vec<(Protocol, u16)>>,
    /// A snapshot is under way.
    collecting: bool,
}

/// What a message of the log is to its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// New: to be installed; and the connections or records in it.
    Run(Run, u64),
    /// Known already.
    Nothing,
    /// Something before it is missing: ask again.
    Gap,
}

impl TargetView {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, linked: false, seen: None, asked: None, answered: None, listening: None, collecting: false }
    }

    pub(super) fn link(&mut self, address: IpAddr) {
        *self = Self { linked: true, seen: self.seen, ..Self::new(address) };
    }

    pub(super) fn unlink(&mut self) {
        *self = Self { seen: self.seen, ..Self::new(self.address) };
    }

    /// Whether everything it holds is known: it answered on this link, and its log has been followed since.
    pub(super) fn is_warm(&self) -> bool {
        self.linked && self.answered.is_some() && self.listening.is_some()
    }

    pub(super) fn has_answered(&self, epoch: Epoch) -> bool {
        self.linked && self.answered == Some(epoch) && self.listening.is_some()
    }

    /// Takes one message of the log in, whatever came before it.
    pub(super) fn take(&mut self, message: Connections) -> Taken {
        let Connections { vipa: _, run, upto, answers } = message;
        let taken = match run {
            Run::Tail { after, records } => {
                let seen = self.seen.filter(|seen| seen.incarnation == upto.incarnation);
                let Some(seen) = seen.filter(|seen| seen.sequence >= after) else { return Taken::Gap };
                let known = usize::try_from(seen.sequence - after).unwrap_or(usize::MAX).min(records.len());
                let fresh = records[known..].to_vec();
                self.seen = Some(seen.max(upto));
                match fresh.len() as u64 {
                    0 => Taken::Nothing,
                    count => Taken::Run(Run::Tail { after: seen.sequence, records: fresh }, count),
                }
            }
            Run::Snapshot { part, connections } => {
                let starts = matches!(part, Part::Only | Part::First);
                if !starts && !self.collecting {
                    return Taken::Gap;
                }
                self.collecting = matches!(part, Part::First | Part::Middle);
                // Half a snapshot is no position: if the rest never comes, everything is asked for again.
                self.seen = if self.collecting { None } else { Some(upto) };
                let count = connections.len() as u64;
                Taken::Run(Run::Snapshot { part, connections }, count)
            }
        };
        if answers.is_some() {
            self.answered = answers;
        }
        taken
    }
}
