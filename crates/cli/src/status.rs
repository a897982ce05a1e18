//! Exit statuses, for scripts: what became of a question or an order.
//!
//! | status | it says |
//! |---|---|
//! | 0 | done, or nothing to object to |
//! | 1 | refused, or it could not be done |
//! | 2 | the command line is wrong |
//! | 3 | what is asked about is not there |
//! | 4 | the router does not answer, or none runs here |
//! | 0, 1, 2 | of `vipactl health`: ok, WARNING, CRITICAL |
//! | 5 | an answer that somebody should look at: something differs, would be lost, or was left or not changed |

use std::fmt;

use vipa_protocol::admin::{Answer, AuditResult, Diff, Drill, PeerAnswer, Reload, ReloadOutcome};

/// There is no router to ask, or it says nothing.
const NO_ANSWER: u8 = 4;
const REFUSED: u8 = 1;
const NOT_FOUND: u8 = 3;
/// An answer that somebody should look at.
pub(crate) const LOOK: u8 = 5;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer(pub(crate) String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoAnswer {}

/// What is asked about is not there; a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotFound(pub(crate) String);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFound {}

/// The exit status of what went wrong.
pub(crate) fn of_error(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<NoAnswer>().is_some() {
        NO_ANSWER
    } else if error.downcast_ref::<NotFound>().is_some() {
        NOT_FOUND
    } else {
        REFUSED
    }
}

/// The exit status of an answer that is no error.
pub(crate) fn of_answer(answer: &Answer) -> u8 {
    let is_well = match answer {
        Answer::Reload(Reload { outcome, .. }) => match outcome {
            ReloadOutcome::Applied | ReloadOutcome::Rehearsed => true,
            ReloadOutcome::Unchanged | ReloadOutcome::AppliedInPart | ReloadOutcome::NeedsRestart => false,
        },
        Answer::Audit(audit) => audit.targets.iter().all(|target| match target.result {
            AuditResult::Agrees { .. } => true,
            AuditResult::Differs { repaired, .. } => repaired,
            AuditResult::NoAnswer => false,
        }),
        Answer::Drill(Drill { owned_here, before, voters, voters_linked, losses, unserved, .. }) => {
            let has_successor = !owned_here || !before.is_empty();
            has_successor && voters_linked * 2 > *voters && losses.is_empty() && unserved.is_empty()
        }
        Answer::Diff(Diff { peers, .. }) => {
            peers.iter().all(|peer| matches!(&peer.answer, PeerAnswer::Differs(rows) if rows.is_empty()))
        }
        Answer::Health(health) => return health.severity.exit_status(),
        Answer::Explanation(explanation) => explanation.fate.name == "forwarded",
        Answer::Status(_)
        | Answer::Events(_)
        | Answer::Agent(_)
        | Answer::Connections(_)
        | Answer::Distribution(_)
        | Answer::Takeovers(_)
        | Answer::Counters(_)
        | Answer::Ports(_)
        | Answer::Workers(_)
        | Answer::Decisions(_)
        | Answer::Progress(_)
        | Answer::Done(_)
        | Answer::Captured(_)
        | Answer::NotFound(_)
        | Answer::Error(_) => true,
    };
    if is_well { 0 } else { LOOK }
}
