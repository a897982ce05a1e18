//! What nodes say to each other (`message`), how it is put into bytes (`wire`), how a target fares (`load`) and what that
//! means for it (`fitness`), the kinds of messages (`kind`), what they ask each other beside that (`question`), what a change of ownership leaves to tell
//! (`report`), what operators decide (`order`), free text (`text`), and what `vipactl` asks a router (`admin`). Pure.

#![forbid(unsafe_code)]

pub mod admin;
pub mod eligibility;
pub mod kind;
pub mod load;
pub mod message;
pub mod order;
pub mod question;
pub mod report;
pub mod text;
pub mod wire;

pub use eligibility::Eligibility;
pub use kind::MessageKind;
pub use load::{Accepting, CheckResult, HostLoad, Intent, ListenerLoad, Load, Served};
pub use message::*;
pub use order::{Decision, Matter, Order, Ruling, Stamp};
pub use question::{Digests, Holds, QueryReply, QueryRequest, Question, Reply};
pub use report::{TakeoverReport, Trigger};
