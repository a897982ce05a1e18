//! Whether a candidate gets new connections of a service, and if not, why: one code and one sentence for each reason.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first reason that applies, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Eligibility {
    Fit,
    /// It still holds connections, but this router's list does not name it.
    NotCandidate,
    NotLinked,
    NotListening,
    /// An operator keeps new connections away from it, or from the service.
    Quiesced,
    Draining,
    CheckFailing {
        check: String,
        detail: String,
    },
    /// Nothing that is sent to it seems to arrive there.
    Unreachable {
        in_vain: u64,
    },
    /// Connections wait to be accepted and none is.
    NotAccepting {
        waiting: u32,
    },
    /// As many connections wait to be accepted as the kernel lets.
    QueueFull {
        waiting: u32,
    },
}

impl Eligibility {
    /// As in JSON, and in logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fit => "fit",
            Self::NotCandidate => "not-candidate",
            Self::NotLinked => "not-linked",
            Self::NotListening => "not-listening",
            Self::Quiesced => "quiesced",
            Self::Draining => "draining",
            Self::CheckFailing { .. } => "check-failing",
            Self::Unreachable { .. } => "unreachable",
            Self::NotAccepting { .. } => "not-accepting",
            Self::QueueFull { .. } => "queue-full",
        }
    }

    /// Whether it may get new connections all the same when no candidate is fit: better a slow server than none.
    #[must_use]
    pub const fn is_last_resort(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotAccepting { .. } | Self::QueueFull { .. })
    }
}

/// A sentence without its end, to stand after "no, ".
impl fmt::Display for Eligibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit => f.write_str("it gets new connections"),
            Self::NotCandidate => f.write_str("not a candidate"),
            Self::NotLinked => f.write_str("its agent has no link to this router"),
            Self::NotListening => f.write_str("nothing listens"),
            Self::Quiesced => f.write_str("it is quiesced by an operator"),
            Self::Draining => f.write_str("it is draining"),
            Self::CheckFailing { check, detail } if detail.is_empty() => write!(f, "its check {check:?} fails"),
            Self::CheckFailing { check, detail } => write!(f, "its check {check:?} fails: {detail}"),
            Self::Unreachable { in_vain } => write!(f, "none of {in_vain} new connections has reached it"),
            Self::NotAccepting { waiting } => write!(f, "its server accepts none of {waiting} waiting"),
            Self::QueueFull { waiting } => write!(f, "its accept queue is full, {waiting} waiting"),
        }
    }
}

/// [`Eligibility`] in messages between nodes: their encoding does not describe itself, and so cannot read an enum whose tag is a field.
/// JSON keeps that.
pub(crate) mod on_wire {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Eligibility;

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Eligibility")]
    enum OnWire {
        Fit,
        NotCandidate,
        NotLinked,
        NotListening,
        Quiesced,
        Draining,
        CheckFailing { check: String, detail: String },
        Unreachable { in_vain: u64 },
        NotAccepting { waiting: u32 },
        QueueFull { waiting: u32 },
    }

    pub(crate) fn serialize<S: Serializer>(eligibility: &Eligibility, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => eligibility.serialize(serializer),
            false => OnWire::serialize(eligibility, serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Eligibility, D::Error> {
        match deserializer.is_human_readable() {
            true => Eligibility::deserialize(deserializer),
            false => OnWire::deserialize(deserializer),
        }
    }
}
