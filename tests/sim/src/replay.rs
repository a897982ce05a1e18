//! Replay of what a real `vipad` has recorded (`vipactl record start`). Its events are fed to a router again, and each
//! must lead to the recorded outputs. After every step the invariants that concern one router are checked.

mod story;
mod witness;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vipa_cluster::{
    Event, Output, Router,
    recording::{Recording, RecordingError, Step},
};
use vipa_model::Moment;

use self::{story::Clock, witness::Witness};

/// How much of the story is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Events that matter to an operator.
    InShort,
    /// Every event and all its outputs.
    Whole,
}

/// Summary of a replay without a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub events: usize,
    pub outputs: usize,
    /// The last event ended the process: its outputs were not recorded any more.
    pub broken_off: bool,
}

/// Position and kind of the first fault in a recording.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {fault}")]
pub struct ReplayError {
    pub at: Place,
    pub fault: Fault,
}

/// The number of an event and its time, or the beginning.
#[derive(Clone, Debug)]
pub enum Place {
    Beginning,
    Event { number: usize, time: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("at the beginning"),
            Self::Event { number, time } => write!(f, "event {number}, {time}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Unreadable(#[from] RecordingError),
    #[error(
        "{event}\nled to something else: output {output} was, as recorded,\n  {recorded}\nand is, as replayed,\n  {replayed}"
    )]
    Differs { event: String, output: usize, recorded: String, replayed: String },
    #[error("{event}\nmakes the router panic")]
    Panics { event: String },
    /// An invariant, as a sentence that begins with its name.
    #[error("{0}")]
    Violated(String),
}

/// Replays the whole of `bytes`; `tell` receives the story, line by line.
///
/// # Errors
/// The first fault.
pub fn replay(bytes: &[u8], told: Detail, tell: &mut dyn FnMut(&str)) -> Result<Replayed, ReplayError> {
    let at_first = |fault| ReplayError { at: Place::Beginning, fault };
    let mut recording = Recording::read(bytes).map_err(|error| at_first(error.into()))?;
    let clock = Clock::of(&recording.title);
    let panics = || at_first(Fault::Panics { event: "what the recording begins with".into() });
    let (summary, mut witness) =
        guarded(|| (story::opening(&recording), Witness::of(&recording.router))).ok_or_else(panics)?;
    summary.iter().for_each(|line| tell(line));
    let mut replayed = Replayed { events: 0, outputs: 0, broken_off: false };
    let mut last = recording.title.began;
    loop {
        let number = replayed.events + 1;
        let err = |at: Moment, fault| Err(ReplayError { at: Place::Event { number, time: clock.time(at) }, fault });
        let step = match recording.step() {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(replayed),
            Err(error) => return err(last, error.into()),
        };
        last = step.at;
        let Step { at, event, outputs: recorded } = step;
        story::before(&clock, at, &event, told).iter().for_each(|line| tell(line));
        let outcome = guarded(|| {
            let outputs = handle(&mut recording.router, at, event.clone());
            (witness.watch(at, &event, &outputs, &recording.router), outputs)
        });
        let event = || story::shortened(&event);
        let Some((verdict, outputs)) = outcome else { return err(at, Fault::Panics { event: event() }) };
        story::after(&clock, at, &outputs, told).iter().for_each(|line| tell(line));
        replayed.events = number;
        replayed.outputs += outputs.len();
        replayed.broken_off = recorded.is_none();
        if let Some(recorded) = recorded.filter(|recorded| *recorded != outputs) {
            let equal = recorded.iter().zip(&outputs).take_while(|(one, other)| one == other).count();
            let shown = |outputs: &[Output]| outputs.get(equal).map_or("nothing".into(), story::shortened);
            let (recorded, replayed) = (shown(&recorded), shown(&outputs));
            return err(at, Fault::Differs { event: event(), output: equal + 1, recorded, replayed });
        }
        if let Err(violated) = verdict {
            return err(at, Fault::Violated(violated));
        }
    }
}

fn handle(router: &mut Router, at: Moment, event: Event) -> Vec<Output> {
    let mut outputs = Vec::new();
    router.handle(at, event, &mut outputs);
    outputs
}

/// Catches panics. A router that panicked in service panics here too, and so may a fabricated recording. The router is
/// not used after that.
fn guarded<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}
