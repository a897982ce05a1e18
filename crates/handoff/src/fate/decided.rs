//! Where each fate is decided, for those who follow a packet into the code.

use super::{Fate, LocalReply, Reason};

impl Fate {
    /// The file, from `crates/`, and the function in it; where several decide alike, the one that nearly always does.
    #[must_use]
    pub const fn decided_in(self) -> &'static str {
        match self {
            Self::Forward => "dataplane/src/decide.rs, decide_all",
            Self::ToKernel => "dataplane/src/classify.rs, not_ours",
            Self::FromKernel => "dataplane/src/classify.rs, classify",
            Self::Punt => "dataplane/src/classify/neighbour.rs, arp",
            Self::Local(reply) => match reply {
                LocalReply::Arp => "dataplane/src/classify/neighbour.rs, arp",
                LocalReply::Neighbour => "dataplane/src/classify/neighbour.rs, discovery",
                LocalReply::IcmpEcho => "dataplane/src/classify/vipa.rs, ping",
                LocalReply::Reset => "dataplane/src/decide.rs, apply_orphan_policy",
                LocalReply::TooBig => "dataplane/src/path.rs, forward_rewritten",
                LocalReply::TimeExceeded => "dataplane/src/decide.rs, known",
                LocalReply::Unreachable => "handoff/src/explain.rs, not_opened",
            },
            Self::Drop(reason) => reason.decided_in(),
        }
    }
}

impl Reason {
    /// As [`Fate::decided_in`].
    #[must_use]
    pub const fn decided_in(self) -> &'static str {
        match self {
            Self::Malformed(_) => "packet/src/parse.rs, parse",
            Self::NotForUs | Self::Vlan => "dataplane/src/classify.rs, classify_any",
            Self::Group | Self::ArpOfOthers | Self::EtherType | Self::NoVipa => "dataplane/src/classify.rs, not_ours",
            Self::Fragment => "dataplane/src/worker.rs, hold_part",
            Self::FragmentBad => "dataplane/src/classify/vipa.rs, part",
            Self::IpProtocol => "dataplane/src/classify.rs, classify_any",
            Self::Icmp => "dataplane/src/classify/vipa.rs, icmp4",
            Self::IcmpOrphan => "dataplane/src/decide.rs, unknown",
            Self::NoService | Self::NoTarget => "dataplane/src/decide.rs, pick",
            Self::Denied | Self::VipaLimit | Self::SourceLimit => "dataplane/src/decide.rs, permits",
            Self::Overload => "dataplane/src/classify/vipa.rs, to_vipa",
            Self::TooBig => "dataplane/src/path.rs, forward_rewritten",
            Self::TimeToLive => "dataplane/src/path.rs, rewrite",
            Self::AnswerLimit => "dataplane/src/tx_ports.rs, answer_with",
            Self::NoRoute => "dataplane/src/path.rs, forward_changed",
            Self::KernelLimit => "dataplane/src/tx_ports.rs, pass_to_kernel",
            Self::NoNeighbour => "dataplane/src/worker.rs, apply_held",
            Self::Orphan => "dataplane/src/decide.rs, apply_orphan_policy",
            Self::SynAck => "dataplane/src/decide.rs, orphan",
            Self::Fenced => "dataplane/src/decide.rs, admit",
            Self::Standby => "dataplane/src/decide.rs, to_own",
            Self::TableFull => "dataplane/src/decide/unrecorded.rs, unrecorded",
            Self::HoldFull => "dataplane/src/hold.rs, push",
            Self::HoldExpired => "dataplane/src/worker.rs, apply_held",
            Self::TxRefused => "dataplane/src/tx_ports.rs, refuse",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_fate_names_a_function_that_is_there() {
        for fate in Fate::all() {
            let (file, function) = fate.decided_in().split_once(", ").expect("a file and a function");
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file));
            let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
            let is_there =
                [format!("fn {function}("), format!("fn {function}<")].iter().any(|head| text.contains(head));
            assert!(is_there, "{}: {file} has no function {function}", fate.name());
        }
    }
}
