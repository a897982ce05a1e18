//! The story of a recording: which router recorded it, and the events and outputs that matter to an operator.

use std::fmt::Debug;

use vipa_cluster::{
    Event, Output,
    recording::{Recording, Title},
};
use vipa_model::Moment;
use vipa_protocol::Message;

use super::Detail;

/// Characters of an event or output that are shown.
const MOST_SHOWN: usize = 1000;

/// Converts the router's clock to the calendar.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    began: Moment,
    began_unix_ms: u64,
}

impl Clock {
    pub(super) fn of(title: &Title) -> Self {
        Self { began: title.began, began_unix_ms: title.began_unix_ms }
    }

    /// The time of day, UTC, and the time since the beginning.
    pub(super) fn time(&self, at: Moment) -> String {
        let passed = at.since(self.began);
        let ms = self.began_unix_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)) % 86_400_000;
        let (second, ms) = (ms / 1000, ms % 1000);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{hour:02}:{minute:02}:{second:02}.{ms:03} (+{:.3} s)", passed.as_secs_f64())
    }
}

/// The router that recorded, and its state at the beginning.
pub(super) fn opening(recording: &Recording<'_>) -> Vec<String> {
    let (Title { node, release, .. }, router) = (&recording.title, &recording.router);
    let hello = router.hello();
    let voters: Vec<_> = hello.voters.names.iter().map(|name| name.as_str()).collect();
    let mut lines = vec![format!(
        "router {node} of cluster {}, release {release}, incarnation {}; voters {}, version {}",
        hello.cluster,
        hello.incarnation.0,
        voters.join(", "),
        hello.voters.version
    )];
    for vipa in router.vipas() {
        let owner = vipa.owner.map_or("nobody".into(), |owner| owner.to_string());
        lines.push(format!("{}: {}, epoch {} of {owner}", vipa.vipa, vipa.state, vipa.epoch));
    }
    lines
}

pub(super) fn before(clock: &Clock, at: Moment, event: &Event, told: Detail) -> Vec<String> {
    let is_new = match event {
        Event::Order { .. }
        | Event::Unfit { .. }
        | Event::Fit
        | Event::Configured { .. }
        | Event::ReadAnew { .. }
        | Event::Stop => true,
        Event::Received { message, .. } => is_new(message),
        // The router itself makes a note of these.
        Event::Connected { .. } | Event::Disconnected { .. } => false,
        Event::Timeout | Event::VotesStored { .. } | Event::DecisionsStored { .. } | Event::Counted { .. } => false,
    };
    if is_new || told == Detail::Whole {
        vec![format!("{}  ← {}", clock.time(at), shortened(event))]
    } else {
        Vec::new()
    }
}

pub(super) fn after(clock: &Clock, at: Moment, outputs: &[Output], told: Detail) -> Vec<String> {
    let line = |output: &Output| match output {
        Output::Note(note) => Some(format!("{}    {note}", clock.time(at))),
        _ if told == Detail::Whole || is_deed(output) => Some(format!("{}  → {}", clock.time(at), shortened(output))),
        _ => None,
    };
    outputs.iter().filter_map(line).collect()
}

fn is_deed(output: &Output) -> bool {
    match output {
        Output::Send { message, .. } => is_new(message),
        Output::StoreVote { .. }
        | Output::StoreDecisions { .. }
        | Output::Order { .. }
        | Output::Rest { .. }
        | Output::Dropped { .. }
        | Output::Stance { .. }
        | Output::Announce { .. }
        | Output::Withdraw { .. }
        | Output::SendTable { .. }
        | Output::Report(_)
        | Output::Note(_)
        | Output::Stopped => true,
        Output::Lease { .. }
        | Output::Install { .. }
        | Output::Listeners { .. }
        | Output::Complete { .. }
        | Output::Paths { .. }
        | Output::StoreLists { .. }
        | Output::TableReplica { .. }
        | Output::Load { .. }
        | Output::LinkAddress { .. }
        | Output::ServeWith { .. }
        | Output::InstallTable { .. } => false,
    }
}

fn is_new(message: &Message) -> bool {
    match message {
        Message::Claims(_)
        | Message::Votes(_)
        | Message::Yield(_)
        | Message::YieldRefused(_)
        | Message::TakebackRequest(_)
        | Message::SelfCheckReport(_)
        | Message::Voters(_)
        | Message::Decisions(_)
        | Message::Associate(_)
        | Message::Release(_) => true,
        Message::Hello(_)
        | Message::Beat(_)
        | Message::BeatAck(_)
        | Message::Distribution(_)
        | Message::Listeners(_)
        | Message::Connections(_)
        | Message::Load(_)
        | Message::LinkAddress(_)
        | Message::TableReplica(_)
        | Message::DecisionAck(_)
        | Message::QueryRequest(_)
        | Message::QueryReply(_)
        | Message::Table(_) => false,
    }
}

/// The `Debug` text on one line, cut to a readable length.
pub(super) fn shortened(what: &impl Debug) -> String {
    let whole = format!("{what:?}");
    match whole.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}… ({} characters)", &whole[..end], whole.len()),
        None => whole,
    }
}
