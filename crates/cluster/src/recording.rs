//! Recording of a router's events as bytes: enough for another router to replay them with the same results.
//!
//! ```text
//!  0            8        12
//!  ┌────────────┬────────┬───────┬────────┬────────┬────────┬──────────────┬────
//!  │ "vipa rec" │ length │ Title │ length │ Router │ length │ Event or Led │ …      one of them for each event, and one
//!  └────────────┴────────┴───────┴────────┴────────┴────────┴──────────────┴────    for what came of it
//! ```
//! Lengths are big-endian; each gives the length of a postcard encoding, as in `protocol::wire`. The router is recorded
//! as it was (with votes, voters, incarnation and configuration), so a recording may begin at any moment of its life. A
//! recording that ends with an event, and not with what it led to, was cut off by that event.

use serde::{Deserialize, Serialize};
use vipa_model::{Moment, NodeName};

use crate::{Event, Output, Router};

const MAGIC: [u8; 8] = *b"vipa rec";
const LENGTH_BYTES: usize = 4;
/// Later than any router's clock, which counts nanoseconds from the start of the process.
const LATEST: Moment = Moment(1 << 62);

/// Which router recorded, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title {
    pub release: String,
    pub protocol: u16,
    pub node: NodeName,
    /// When it begins, by the router's clock and by the calendar.
    pub began: Moment,
    pub began_unix_ms: u64,
}

/// A frame as it is written; it is read as `Frame`, of the same layout.
#[derive(Serialize)]
enum FrameRef<'a> {
    Event { at: Moment, event: &'a Event },
    Led(&'a [Output]),
}

#[derive(Deserialize)]
enum Frame {
    Event { at: Moment, event: Event },
    Led(Vec<Output>),
}

/// One event, and what it led to; `None`: that was not recorded any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: Moment,
    pub event: Event,
    pub outputs: Option<Vec<Output>>,
}

/// Why bytes are no recording, or none from some byte on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    #[error("this is no recording of a router")]
    Foreign,
    #[error(
        "{node} recorded this with release {release} and protocol {protocol}, and this is release {} and protocol {}: \
         replay it with the release it is of", env!("CARGO_PKG_VERSION"), vipa_protocol::VERSION
    )]
    OtherRelease { node: NodeName, release: String, protocol: u16 },
    #[error("the recording breaks off at byte {at}, in the middle of something")]
    CutOff { at: usize },
    #[error("what stands at byte {at} of the recording is {what}")]
    Damaged { at: usize, what: String },
}

/// The beginning of a recording: `router` as it is at this moment.
#[must_use]
pub fn begin(router: &Router, now: Moment, unix_ms: u64) -> Vec<u8> {
    let title = Title {
        release: env!("CARGO_PKG_VERSION").into(),
        protocol: vipa_protocol::VERSION,
        node: router.hello().node,
        began: now,
        began_unix_ms: unix_ms,
    };
    let mut bytes = MAGIC.to_vec();
    append(&mut bytes, &title);
    append(&mut bytes, router);
    bytes
}

/// Appends an event that is about to be handled.
pub fn append_event(bytes: &mut Vec<u8>, at: Moment, event: &Event) {
    append(bytes, &FrameRef::Event { at, event });
}

/// Appends what the previous event led to.
pub fn append_outputs(bytes: &mut Vec<u8>, outputs: &[Output]) {
    append(bytes, &FrameRef::Led(outputs));
}

fn append<T: Serialize>(bytes: &mut Vec<u8>, what: &T) {
    let start = bytes.len();
    bytes.extend([0; LENGTH_BYTES]);
    *bytes = postcard::to_extend(what, std::mem::take(bytes)).expect("every sequence of it has a length");
    let length = u32::try_from(bytes.len() - start - LENGTH_BYTES).expect("a message is far shorter than 4 GB");
    bytes[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A recording that is being read.
#[derive(Clone, Debug)]
pub struct Recording<'a> {
    pub title: Title,
    /// The router as it was when the recording began.
    pub router: Router,
    steps: Frames<'a>,
    latest: Moment,
}

impl<'a> Recording<'a> {
    /// Reads the beginning.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordingError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(RecordingError::Foreign)?;
        let mut steps = Frames { at: MAGIC.len(), rest };
        let missing = |at| RecordingError::CutOff { at };
        let title: Title = steps.next()?.ok_or(missing(MAGIC.len()))?;
        if (&*title.release, title.protocol) != (env!("CARGO_PKG_VERSION"), vipa_protocol::VERSION) {
            let Title { node, release, protocol, .. } = title;
            return Err(RecordingError::OtherRelease { node, release, protocol });
        }
        let at = steps.at;
        let router = steps.next()?.ok_or(missing(at))?;
        Ok(Self { latest: title.began, title, router, steps })
    }

    /// The next event; `None` at the end.
    pub fn step(&mut self) -> Result<Option<Step>, RecordingError> {
        let start = self.steps.at;
        let damaged = |at, what: &str| RecordingError::Damaged { at, what: what.into() };
        let (at, event) = match self.steps.next()? {
            None => return Ok(None),
            Some(Frame::Event { at, event }) => (at, event),
            Some(Frame::Led(_)) => return Err(damaged(start, "what an event led to, but no event")),
        };
        if at < self.latest || at > LATEST {
            return Err(damaged(start, "an event of another time"));
        }
        self.latest = at;
        let start = self.steps.at;
        let outputs = match self.steps.next()? {
            None => None,
            Some(Frame::Led(outputs)) => Some(outputs),
            Some(Frame::Event { .. }) => return Err(damaged(start, "an event, where the one before led to something")),
        };
        Ok(Some(Step { at, event, outputs }))
    }
}

#[derive(Clone, Debug)]
struct Frames<'a> {
    /// Where `rest` begins, in bytes.
    at: usize,
    rest: &'a [u8],
}

impl Frames<'_> {
    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, RecordingError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let cut = RecordingError::CutOff { at };
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>().ok_or(cut.clone())?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut.clone())?;
        let (frame, rest) = rest.split_at_checked(length).ok_or(cut)?;
        let damaged = |what: String| RecordingError::Damaged { at, what };
        let (what, trailing) =
            postcard::take_from_bytes(frame).map_err(|cause| damaged(format!("damaged: {cause}")))?;
        if !trailing.is_empty() {
            return Err(damaged(format!("followed by {} bytes of nothing known", trailing.len())));
        }
        (self.at, self.rest) = (at + LENGTH_BYTES + length, rest);
        Ok(Some(what))
    }
}

#[cfg(test)]
mod tests;
