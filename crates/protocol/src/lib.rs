//! What nodes say to each other (`message`), how it is put into bytes (`wire`), how a target fares (`load`) and what that
//! means for it (`fitness`), the kinds of messages (`kind`), what they ask each other beside that (`question`), what a change of ownership leaves to tell
//! (`report`), what counters mean (`meaning`), what operators decide (`order`), what happened (`event`), whether a node is healthy (`health`), free text (`text`), and what `vipactl` asks a router (`admin`). Pure.

#![forbid(unsafe_code)]

pub mod admin;
pub mod agent_status;
pub mod eligibility;
pub mod event;
pub mod health;
pub mod key_digest;
pub mod kind;
pub mod load;
pub mod meaning;
pub mod message;
pub mod order;
pub mod question;
pub mod report;
pub mod text;
pub mod wire;

pub use agent_status::{AgentStatus, HostStatus, HostWork, VipaSummary, assess_agent};
pub use eligibility::Eligibility;
pub use event::{ClusterEvent, EventKind, EventLevel, LimitKind, OwnershipCause, ReloadResult, ServiceKey};
pub use health::{Health, HealthCheck, HealthFacts, Severity};
pub use key_digest::KeyDigest;
pub use kind::MessageKind;
pub use load::{Accepting, CheckResult, HostLoad, Intent, ListenerLoad, Load, Served};
pub use message::*;
pub use order::{Decision, Given, Matter, Operator, Order, Ruling, Stamp};
pub use question::{Digests, Holds, QueryReply, QueryRequest, Question, Reply};
pub use report::{TakeoverReport, Trigger};
