//! What nodes say to each other (`message`), how it is put into bytes (`wire`), what a change of ownership leaves to
//! tell (`report`), and what `vipactl` asks a router (`admin`). Pure.

#![forbid(unsafe_code)]

pub mod admin;
pub mod message;
pub mod report;
pub mod wire;

pub use message::*;
pub use report::{TakeoverReport, Trigger};
