//! What operators ask and order, each given to who knows it.

use std::time::Duration;

use vipa_cluster::Event;
use vipa_protocol::{
    EventKind, Given,
    admin::{Answer, Request},
};

use crate::{
    admin::{connections, explain, hardware, socket::Reply, status},
    control::Control,
    ownership::restart_gap::unix_ms,
};

impl Control {
    pub(crate) fn asked(&mut self, request: Request, reply: Reply) {
        match request {
            Request::Order { order } => {
                let by = reply.operator().cloned().unwrap_or_default();
                let token = self.orders.keep(&order, reply);
                self.happened(EventKind::Ordered { order: order.to_string(), by: by.clone() });
                self.feed(Event::Order { token, order, given: Some(Given { by, unix_ms: unix_ms() }) });
            }
            Request::Reload { mode, confirm_ms } => {
                self.reader.start(mode, confirm_ms.map(Duration::from_millis), Some(reply));
            }
            Request::CaptureStart { filter } => reply.end(self.begin_capture(&filter)),
            Request::CaptureRead => reply.end(self.read_capture()),
            Request::CaptureStop => reply.end(self.stop_capture()),
            Request::Confirm { undo } => reply.end(self.confirm(undo)),
            Request::Record { what } => self.record(what, reply),
            Request::Audit { vipa, mode } => self.audit(vipa, mode, reply.last()),
            Request::Drill { vipa } => {
                self.count_then(move |control, counting| control.drill(vipa, counting, reply.last()));
            }
            Request::Diff { vipa } => self.diff(vipa, reply.last()),
            Request::Status => self
                .count_and_answer(reply, |control, counts| Answer::Status(Box::new(status::status(control, counts)))),
            Request::Distribution => self
                .count_and_answer(reply, |control, counts| Answer::Distribution(status::distribution(control, counts))),
            Request::Connections { limit, filter, count_by } => {
                connections::list_connections(self, limit, filter, count_by, reply);
            }
            Request::Explain { vipa, connection } => reply.end(explain::explain(self, vipa, &connection)),
            Request::Takeovers => reply.end(status::takeovers(self)),
            Request::Counters => reply.end(Answer::Counters(status::counters(self))),
            Request::Ports => reply.end(Answer::Ports(hardware::ports(self))),
            Request::Workers => reply.end(Answer::Workers(hardware::workers(self))),
            Request::Decisions => reply.end(status::decisions(self)),
            Request::Events { since_unix_ms, vipa } => self.tell_events(since_unix_ms, vipa, reply),
            Request::Health => reply.end(Answer::Health(self.assess())),
        }
    }
}
