//! Questions to other nodes, and theirs to us (`vipa_protocol::question`).
//!
//! ```text
//!   a task that audits ──Query──► control ──QueryRequest, with a token──► the other node
//!                      ◄──Reply─── control ◄──QueryReply, with it──────
//! ```
//! The tasks wait; control only passes on. An answer that does not come is the task's to give up.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::{mpsc, oneshot};
use vipa_model::{NodeName, config, listed};
use vipa_protocol::{Message, QueryReply, QueryRequest, Question, Reply, question::VipaSettings};

use crate::control::Control;

/// Questions under way at one time; one more is not asked.
const AT_ONCE: usize = 1024;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question on its way to control.
pub(crate) struct Query {
    to: NodeName,
    question: Question,
    reply: oneshot::Sender<Reply>,
}

/// For tasks that ask; cheap to clone.
#[derive(Clone)]
pub(crate) struct QuerySender(mpsc::Sender<Query>);

impl QuerySender {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Query>) {
        let (asks, asked) = mpsc::channel(64);
        (Self(asks), asked)
    }

    /// `None`: no answer in time, or no link.
    pub(crate) async fn ask(&self, to: &NodeName, question: Question) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Query { to: to.clone(), question, reply }).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

/// Questions without an answer yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    last: u64,
    by_token: BTreeMap<u64, (NodeName, oneshot::Sender<Reply>)>,
}

impl Waiting {
    /// The message to send, and to whom; `None` when too many wait already.
    pub(crate) fn ask(&mut self, asking: Query) -> Option<(NodeName, Message)> {
        let Query { to, question, reply } = asking;
        self.by_token.retain(|_, (_, reply)| !reply.is_closed());
        if self.by_token.len() >= AT_ONCE {
            return None;
        }
        self.last += 1;
        self.by_token.insert(self.last, (to.clone(), reply));
        Some((to, Message::QueryRequest(QueryRequest { token: self.last, question })))
    }

    /// An answer came. One that nobody waits for is let be, and one from somebody else.
    pub(crate) fn told(&mut self, from: &NodeName, told: QueryReply) {
        if self.by_token.get(&told.token).is_some_and(|(asked, _)| asked == from)
            && let Some((_, reply)) = self.by_token.remove(&told.token)
        {
            // Who asked may have given up.
            let _ = reply.send(told.reply);
        }
    }
}

/// What this router answers.
pub(crate) fn reply(config: &config::Config, question: &Question) -> Reply {
    match question {
        Question::Holds { .. } | Question::Events { .. } | Question::SettingsDigests => Reply::Unknown,
        Question::Settings { vipa } => match config.vipas.iter().find(|known| known.address == *vipa) {
            Some(vipa) => Reply::Settings(settings(config, vipa)),
            None => Reply::Unknown,
        },
    }
}

/// Settings that routers may well have each in their own way.
const OWN_AFFAIR: [&str; 1] = ["activate"];

/// For each VIPA, a digest of what should be the same at every router that may own it.
pub(crate) fn settings_digests(config: &config::Config) -> Vec<(IpAddr, u64)> {
    let digest = |vipa: &config::Vipa| {
        let VipaSettings { ranks, services: _, mut others } = settings(config, vipa);
        others.retain(|(name, _)| !OWN_AFFAIR.contains(&name.as_str()));
        let ranks = listed(ranks.iter().map(|(name, rank)| format!("{name} {}", rank.0)));
        let others = listed(others.iter().map(|(name, value)| format!("{name} {value}")));
        (vipa.address, fnv1a(format!("{ranks}; {others}").as_bytes()))
    };
    config.vipas.iter().map(digest).collect()
}

/// FNV-1a of 64 bits: alike on every node. It finds mistakes, no forgeries.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What two routers of a VIPA may differ in.
pub(crate) fn settings(config: &config::Config, vipa: &config::Vipa) -> VipaSettings {
    let config::Vipa {
        address: _,
        ranks,
        activate,
        takeback,
        takeback_delay,
        group,
        new_per_second,
        unserved,
        services,
    } = vipa;
    let cluster = &config.cluster;
    let text = |name: &str, value: String| (name.to_owned(), value);
    let limit = new_per_second.map_or_else(|| "none".into(), |limit| limit.to_string());
    let milliseconds = |span: Duration| span.as_millis().to_string();
    VipaSettings {
        ranks: ranks.clone(),
        services: services.clone(),
        others: vec![
            text("activate", activate.to_string()),
            text("takeback", takeback.name().into()),
            text("takeback_delay_s", takeback_delay.as_secs().to_string()),
            text("group", group.clone().unwrap_or_else(|| "none".into())),
            text("new_per_second", limit),
            text("unserved", unserved.name().into()),
            text("cluster.lease_ms", milliseconds(cluster.lease)),
            text("cluster.beat_ms", milliseconds(cluster.beat)),
            text("cluster.drift_percent", cluster.drift_percent.to_string()),
            text("cluster.rebuild_deadline_ms", milliseconds(cluster.rebuild_deadline)),
            text("cluster.grace_ms", milliseconds(cluster.grace)),
        ],
    }
}

impl Control {
    /// Questions and answers are no events of the cluster's, which says who may send them.
    pub(crate) fn questioned(&mut self, peer: &NodeName, message: Message) {
        if let Err(denial) = self.cluster.may_send(peer, &message) {
            self.counts.questions_denied += 1;
            tracing::debug!(%peer, %denial, "a question or an answer is not listened to");
            return;
        }
        match message {
            Message::QueryRequest(QueryRequest { token, question }) => {
                let reply = self.answer_query(&question);
                self.links.send(peer, &Message::QueryReply(QueryReply { token, reply }));
            }
            Message::QueryReply(told) => self.waiting.told(peer, told),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_answer_reaches_who_asked_and_only_from_whom_was_asked() {
        let (asker, mut asked) = QuerySender::new();
        let mut waiting = Waiting::default();
        let question = tokio::spawn(async move { asker.ask(&name("r2"), Question::Settings { vipa: VIPA }).await });
        let (to, message) = waiting.ask(asked.recv().await.unwrap()).unwrap();
        let Message::QueryRequest(QueryRequest { token, .. }) = message else { panic!("{message:?}") };
        assert_eq!(to, name("r2"));
        waiting.told(&name("r3"), QueryReply { token, reply: Reply::Unknown });
        assert_eq!(waiting.by_token.len(), 1, "r3 was not asked");
        waiting.told(&name("r2"), QueryReply { token: token + 1, reply: Reply::Unknown });
        waiting.told(&name("r2"), QueryReply { token, reply: Reply::Unknown });
        assert_eq!(question.await.unwrap(), Some(Reply::Unknown));
    }

    #[tokio::test]
    async fn a_question_without_an_answer_is_given_up_and_forgotten() {
        let (asker, mut asked) = QuerySender::new();
        let mut waiting = Waiting::default();
        let question = {
            let asker = asker.clone();
            tokio::spawn(async move { asker.ask(&name("r2"), Question::Settings { vipa: VIPA }).await })
        };
        waiting.ask(asked.recv().await.unwrap()).unwrap();
        assert_eq!(question.await.unwrap(), None);
        let (reply, _answer) = oneshot::channel();
        waiting.ask(Query { to: name("r3"), question: Question::Settings { vipa: VIPA }, reply }).unwrap();
        assert_eq!(waiting.by_token.len(), 1);
    }
}
