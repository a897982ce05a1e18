//! Claims and votes to be sent: those of one event go to each node in one message, however many VIPAs they are about.
//!
//! A router that owned a thousand VIPAs fails for all of them at once. Both backups ask every voter about each VIPA,
//! twice: one message for each would take longer than the ballots may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vipa_model::NodeName;
use vipa_protocol::{Claim, Claims, Message, Vote, Votes, message::BALLOTS_PART};

/// Claims and votes that are sent once the event has been handled, by receiver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ballots {
    claims: BTreeMap<NodeName, Vec<Claim>>,
    votes: BTreeMap<NodeName, Vec<Vote>>,
}

impl Ballots {
    pub(crate) fn claim(&mut self, voter: &NodeName, claim: Claim) {
        self.claims.entry(voter.clone()).or_default().push(claim);
    }

    pub(crate) fn vote(&mut self, claimant: &NodeName, vote: Vote) {
        self.votes.entry(claimant.clone()).or_default().push(vote);
    }

    /// The messages to be sent, with their receivers. Nothing is left.
    pub(crate) fn take(&mut self) -> Vec<(NodeName, Message)> {
        let mut messages = Vec::new();
        for (to, claims) in std::mem::take(&mut self.claims) {
            let part = |claims: &[Claim]| (to.clone(), Message::Claims(Claims { claims: claims.to_vec() }));
            messages.extend(claims.chunks(BALLOTS_PART).map(part));
        }
        for (to, votes) in std::mem::take(&mut self.votes) {
            let part = |votes: &[Vote]| (to.clone(), Message::Votes(Votes { votes: votes.to_vec() }));
            messages.extend(votes.chunks(BALLOTS_PART).map(part));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use vipa_model::Epoch;
    use vipa_protocol::{Ballot, Grant};

    use super::*;

    #[test]
    fn each_node_gets_all_claims_in_one_message_and_what_is_too_much_for_it_in_the_next() {
        let (r1, t1): (NodeName, NodeName) = ("r1".parse().unwrap(), "t1".parse().unwrap());
        let vipa = |number: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
        let (epoch, ballot) = (Epoch(1), Ballot::Trial);
        let mut ballots = Ballots::default();
        for number in 0..=BALLOTS_PART {
            ballots.claim(&t1, Claim { vipa: vipa(number), epoch, ballot });
        }
        ballots.vote(&r1, Vote::Grant(Grant { vipa: vipa(0), epoch, ballot }));
        let sent = ballots.take();
        let claims = |at: usize| match &sent[at] {
            (to, Message::Claims(Claims { claims })) if *to == t1 => claims.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!((sent.len(), claims(0), claims(1)), (3, BALLOTS_PART, 1));
        assert!(matches!(&sent[2], (to, Message::Votes(Votes { votes })) if *to == r1 && votes.len() == 1));
        assert_eq!(ballots.take(), []);
    }
}
