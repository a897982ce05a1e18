//! Metrics for Prometheus: their names, and the HTTP server that a Prometheus server scrapes.
//!
//! ```text
//!  scrape ──► server (a thread of its own) ──► asks for a Snapshot ──► control loop, or the agent's loop
//!                 ▲                                                        │ numbers and addresses, no text
//!                 └────────── text, made on the server's thread ◄──────────┘
//! ```
//! [`catalogue`] names every metric once: name, help, labels, and what bounds its series. A program fills a [`Snapshot`] with
//! the values of the moment; this crate makes text of it. docs/metrics.md is generated from the catalogue.

#![forbid(unsafe_code)]

pub mod catalogue;
mod exposition;
mod page;
mod server;
mod snapshot;

pub use catalogue::{Bound, Family, MetricSource, ValueKind};
pub use exposition::{Format, expose};
pub use page::page;
pub use server::{MetricsServer, ServerError, SnapshotRequest};
pub use snapshot::{Histogram, Label, MAX_SERIES, Snapshot};
