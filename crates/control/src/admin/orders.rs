//! Who waits for which order.

use std::{collections::BTreeMap, time::Duration};

use vipa_cluster::{Event, Stage};
use vipa_model::Moment;
use vipa_protocol::{
    EventKind, Order,
    admin::{Answer, Said},
    event::event_text,
};

use crate::{admin::socket::Reply, control::Control};

/// How often connections are counted for a takeback that waits for none.
const COUNTING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Orders {
    tokens: u64,
    /// By token; the cluster ends every order, so none stays here.
    waiting: BTreeMap<u64, (Reply, String)>,
    /// When connections were last counted for a takeback.
    pub(crate) counted: Moment,
}

impl Orders {
    /// The token under which the order is known from now on.
    pub(crate) fn keep(&mut self, order: &Order, reply: Reply) -> u64 {
        self.tokens += 1;
        self.waiting.insert(self.tokens, (reply, order.to_string()));
        self.tokens
    }

    /// Tells who gave the order. How it has ended, as an event.
    pub(crate) fn stage(&mut self, token: u64, stage: Stage) -> Option<EventKind> {
        if let Stage::Progress(sentence) = stage {
            if let Some((reply, _)) = self.waiting.get_mut(&token) {
                reply.progress(Said { sentence });
            }
            return None;
        }
        let (reply, order) = self.waiting.remove(&token)?;
        let by = reply.operator().cloned().unwrap_or_default();
        let (answer, event) = match stage {
            Stage::Progress(_) => return None,
            Stage::Done(sentence) => {
                let event = EventKind::OrderDone { order, by, outcome: event_text(&sentence) };
                (Answer::Done(Said { sentence }), event)
            }
            Stage::Refused(sentence) => {
                let event = EventKind::OrderRefused { order, by, why: event_text(&sentence) };
                (Answer::Error(sentence), event)
            }
        };
        reply.end(answer);
        Some(event)
    }
}

impl Control {
    /// Counts the connections of VIPAs that are to be taken back once they are idle.
    pub(crate) fn count_connections(&mut self, now: Moment) {
        if now.since(self.orders.counted) < COUNTING {
            return;
        }
        self.orders.counted = now;
        let wanted = self.cluster.counts_wanted(now);
        if wanted.is_empty() {
            return;
        }
        self.count_then(|control, counting| {
            // They are counted again before long.
            let Ok(counts) = counting else { return };
            for vipa in wanted {
                let Some(index) = control.routing.vipa_index(vipa) else { continue };
                control.feed(Event::Counted { vipa, connections: counts.of(index).total });
            }
        });
    }
}
