//! Who waits for which order.

use std::collections::BTreeMap;

use vipa_cluster::Stage;
use vipa_model::Moment;
use vipa_protocol::admin::{Answer, Said};

use crate::admin::socket::Reply;

#[derive(Debug, Default)]
pub(crate) struct Orders {
    tokens: u64,
    /// By token; the cluster ends every order, so none stays here.
    waiting: BTreeMap<u64, Reply>,
    /// When connections were last counted for a takeback.
    pub(crate) counted: Moment,
}

impl Orders {
    /// The token under which the order is known from now on.
    pub(crate) fn keep(&mut self, reply: Reply) -> u64 {
        self.tokens += 1;
        self.waiting.insert(self.tokens, reply);
        self.tokens
    }

    pub(crate) fn stage(&mut self, token: u64, stage: Stage) {
        let answer = match stage {
            Stage::Progress(sentence) => {
                if let Some(reply) = self.waiting.get_mut(&token) {
                    reply.progress(Said { sentence });
                }
                return;
            }
            Stage::Done(sentence) => {
                tracing::info!(%sentence, "an order is carried out");
                Answer::Done(Said { sentence })
            }
            Stage::Refused(sentence) => {
                tracing::info!(%sentence, "an order is refused");
                Answer::Error(sentence)
            }
        };
        if let Some(reply) = self.waiting.remove(&token) {
            reply.end(answer);
        }
    }
}
