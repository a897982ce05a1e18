//! Operators: their requests and orders, reloads of the configuration, the recorder, and questions to other nodes.

pub(crate) mod capture;
pub(crate) mod client;
pub(crate) mod compare;
pub(crate) mod confirm;
pub(crate) mod connections;
pub(crate) mod drill;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod hardware;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod orders;
pub(crate) mod queries;
pub(crate) mod query_jobs;
pub(crate) mod recorder;
pub(crate) mod refusals;
pub(crate) mod reload;
pub(crate) mod requests;
pub(crate) mod service_status;
pub(crate) mod socket;
pub(crate) mod status;
