//! The kinds of messages, without what is in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Message;

/// Makes the enumeration, the list of all kinds, and the kind of a message from one list, so that none can be forgotten.
macro_rules! message_kinds {
    ($($kind:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum MessageKind {
            $($kind),+
        }

        impl MessageKind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind)),+
                }
            }
        }

        impl Message {
            #[must_use]
            pub const fn kind(&self) -> MessageKind {
                match self {
                    $(Self::$kind(_) => MessageKind::$kind),+
                }
            }
        }
    };
}

message_kinds! {
    Hello, QueryRequest, QueryReply, Beat, BeatAck, Claims, Votes, Distribution, Associate, Release, Listeners,
    Connections, Yield, YieldRefused, Table, Load, TableReplica, TakebackRequest, SelfCheckReport, Decisions, DecisionAck, LinkAddress, Voters,
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
