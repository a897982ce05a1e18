//! What control and workers use to tell each other something without ever waiting. Beside `flow`, the only room in
//! which atomics are named: everybody else composes these.
//!
//! | type | from → to | says |
//! |---|---|---|
//! | [`Publish`], [`Reader`] | control → workers | "this is how the world is now", whole |
//! | [`Mailbox`] | any → any | "this happened", bounded, refusals counted |
//! | [`Deadline`] | control → workers | "until then you may" |
//! | [`Flag`] | any → any | "stop", once and for all |
//! | [`WorkerCounters`], [`WorkerCounterList`], [`Heartbeat`] | one worker → anyone | "so many so far" |
//! | [`Counter`], [`Gauge`] | any → anyone | the same where several write, or where it can fall |

mod atomics;
mod counters;
mod mailbox;
mod publish;
mod signals;

pub use counters::{Counter, Gauge, Heartbeat, WorkerCounterList, WorkerCounters};
pub use mailbox::Mailbox;
pub use publish::{Publish, Reader, Versions};
pub use signals::{Deadline, Flag};
