//! The HTTP/JSON API of a router, and its read-only web page.
//!
//! ```text
//!   Unix socket ─┐ who is it?   ┌ limits ┐   ┌─ /v1/status … ── cache ─┐
//!   TLS ─────────┼─► access ───►│ rates  ├──►┤                         ├──► AdminHandler ──► control
//!   loopback ────┘   (roles)    └────────┘   ├─ /v1/orders … ─ audit ──┘
//!                                            └─ /  the page
//! ```
//! It has a thread and a runtime of its own and decides nothing: what the admin socket answers (`vipa_protocol::admin`), it answers, in
//! the same words. A client can cost no more than its limits: connections, header and body bytes, the time for each, requests a second,
//! and the questions that are on their way to control at one time.

#![forbid(unsafe_code)]

mod access;
mod cache;
mod limits;
mod openapi;
mod operations;
mod page;
mod problem;
mod server;
mod service;
mod tls;

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use vipa_protocol::{
    Operator,
    admin::{Answer, Request, Said},
};

pub use access::ApiRole;
pub use limits::ApiLimits;
pub use openapi::description;
pub use server::{ApiError, ApiListener, ApiServer};

/// An answer on its way; `None`: the router is stopping.
pub type AnswerFuture = Pin<Box<dyn Future<Output = Option<Answer>> + Send>>;

/// Asks control for somebody. Sentences about a request that takes its time go to the sender meanwhile.
pub type AdminHandler = Arc<dyn Fn(Request, Operator, mpsc::Sender<Said>) -> AnswerFuture + Send + Sync>;
