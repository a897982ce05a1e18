//! For other threads: what `vipactl` asks by the admin socket, they ask by a channel.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use vipa_model::config::Config;
use vipa_protocol::{
    Operator,
    admin::{Answer, Request, Said},
};

use super::socket::{Question, Reply};
use crate::control::{Control, Ends};

/// Questions of the admin socket and of other threads that wait for the loop; who has one more waits with it.
const WAITING: usize = 16;

/// Asks control; cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminClient(pub(crate) mpsc::Sender<Question>);

impl AdminClient {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING);
        (Self(questions), asked)
    }

    /// The answer for `operator`; sentences about what takes its time go to `progress` meanwhile, as far as that has room. `None`: control has ended.
    pub async fn ask(&self, request: Request, operator: Operator, progress: mpsc::Sender<Said>) -> Option<Answer> {
        let (end, answer) = oneshot::channel();
        self.0.send((request, Reply::new(progress, end).to(operator))).await.ok()?;
        answer.await.ok()
    }
}

impl Ends {
    /// For threads that ask what the admin socket asks.
    #[must_use]
    pub fn admin_client(&self) -> AdminClient {
        self.questions.0.clone()
    }
}

impl Control {
    /// The configuration as reloads change it.
    #[must_use]
    pub fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.configs.subscribe()
    }
}
