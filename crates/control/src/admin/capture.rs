//! Captures: one at a time, begun and read by an operator, ended when it has what it wants or nobody reads it any more.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

use vipa_handoff::{Capture, CaptureRecord};
use vipa_model::Moment;
use vipa_protocol::admin::{self, Answer, CaptureFilter, Captured, MAX_CAPTURE_S, MAX_CAPTURED, Said};

use crate::control::Control;

/// Packets of one answer.
const AT_ONCE: usize = 512;
/// A capture that nobody has read for so long is over: who wanted it has gone.
const UNREAD: Duration = Duration::from_secs(5);

/// A capture under way.
pub(crate) struct Running {
    capture: Arc<Capture>,
    read: Moment,
}

impl Control {
    pub(crate) fn begin_capture(&mut self, filter: &CaptureFilter) -> Answer {
        let CaptureFilter { vipa, fates, limit, seconds } = filter;
        if self.capture.is_some() {
            return Answer::Error(
                "another capture is under way; it ends when it has what it wants, or is not read".into(),
            );
        }
        if !(1..=MAX_CAPTURED).contains(limit) || !(1..=MAX_CAPTURE_S).contains(seconds) {
            return Answer::Error(format!(
                "a capture has 1 to {MAX_CAPTURED} packets and lasts 1 to {MAX_CAPTURE_S} seconds"
            ));
        }
        if let Some(vipa) = vipa.filter(|vipa| self.routing.vipa_index(*vipa).is_none()) {
            return super::connections::no_vipa(vipa);
        }
        let now = self.clock.now();
        match Capture::new(*vipa, fates, *limit, now, Duration::from_secs(*seconds)) {
            Err(why) => Answer::Error(why),
            Ok(capture) => {
                tracing::info!(
                    "a capture begins: {limit} packets and {seconds} s at most; workers take packets one at a time"
                );
                let capture = Arc::new(capture);
                self.routing.capture = Some(Arc::clone(&capture));
                self.capture = Some(Running { capture, read: now });
                self.routes_stale = true;
                Answer::Done(Said { sentence: "the capture begins".into() })
            }
        }
    }

    /// What came since the last time.
    pub(crate) fn read_capture(&mut self) -> Answer {
        let now = self.clock.now();
        let Some(running) = &mut self.capture else {
            return Answer::Captured(Captured { is_over: true, ..Captured::default() });
        };
        running.read = now;
        let (capture, was_over) = (Arc::clone(&running.capture), running.capture.is_over(now));
        let packets: Vec<_> =
            std::iter::from_fn(|| capture.next()).take(AT_ONCE).map(|one| self.captured(&one, now)).collect();
        // A worker may be at its last packet when the end comes.
        let is_over = was_over && packets.is_empty();
        if is_over {
            self.end_capture();
        }
        Answer::Captured(Captured { packets, is_over, lost: capture.lost() })
    }

    pub(crate) fn stop_capture(&mut self) -> Answer {
        match &self.capture {
            None => Answer::NotFound("no capture is under way".into()),
            Some(Running { capture, .. }) => {
                capture.stop();
                Answer::Done(Said { sentence: "the capture ends".into() })
            }
        }
    }

    /// Ends one that nobody reads.
    pub(crate) fn tend_capture(&mut self, now: Moment) {
        if self.capture.as_ref().is_some_and(|running| now.since(running.read) >= UNREAD) {
            self.end_capture();
        }
    }

    fn end_capture(&mut self) {
        if let Some(Running { capture, .. }) = self.capture.take() {
            capture.stop();
            tracing::info!("the capture is over");
        }
        self.routing.capture = None;
        self.routes_stale = true;
    }

    fn captured(&self, packet: &CaptureRecord, now: Moment) -> admin::CapturedPacket {
        let CaptureRecord { at, port, is_outgoing, fate, length, bytes } = packet;
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let taken = unix.saturating_sub(now.since(*at));
        let mut frame = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            // Nothing that is written to a string fails.
            let _ = write!(frame, "{byte:02x}");
        }
        admin::CapturedPacket {
            unix_ns: u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX),
            port: self.captured_port(*port),
            is_outgoing: *is_outgoing,
            fate: fate.name().into(),
            length: *length,
            frame,
        }
    }

    /// A port's name; that of the port it belongs to for a kernel interface.
    fn captured_port(&self, port: vipa_model::PortId) -> String {
        let of_kernel = self.routing.ports.iter().position(|of| of.kernel == Some(port));
        match of_kernel.and_then(|of| self.config.ports.get(of)) {
            Some(of) => format!("{} kernel", of.name),
            None => self.port_name(port).to_owned(),
        }
    }
}
