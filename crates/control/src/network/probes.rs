//! Asks the candidates that have no agent whether they serve, each at its own pace, over the kernel's network.
//!
//! The kernel's, because a TCP connection needs a stack: where the kernel shares the NIC with the ports (`af_packet`) or
//! has another, its own routes lead there; where a port has the NIC to itself, its `kernel_interface` does.
//!
//! Every router asks, owner or backup, so that one that takes over knows at once.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{sync::mpsc, task::AbortHandle, time};
use vipa_model::{Agentless, Question, Verdict};
use vipa_transport::probe;

/// What was found, when it has changed.
pub(crate) type ProbeResult = (Agentless, ProbeVerdict);

/// What is known of an agentless candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeVerdict {
    pub(crate) passes: bool,
    /// Why not.
    pub(crate) detail: String,
}

/// The questions that are being asked; as many tasks as the configuration names such candidates.
#[derive(Debug)]
pub(crate) struct Probes {
    running: HashMap<Agentless, AbortHandle>,
    told: mpsc::Sender<ProbeResult>,
}

impl Probes {
    pub(crate) fn new() -> (Self, mpsc::Receiver<ProbeResult>) {
        let (told, findings) = mpsc::channel(64);
        (Self { running: HashMap::new(), told }, findings)
    }

    /// From now on these are asked, and no others. Call it within a runtime.
    pub(crate) fn ask(&mut self, wanted: &[Agentless]) {
        self.running.retain(|known, task| {
            let stays = wanted.contains(known);
            if !stays {
                task.abort();
            }
            stays
        });
        for agentless in wanted {
            if !self.running.contains_key(agentless) {
                let task = tokio::spawn(repeat(agentless.clone(), self.told.clone()));
                self.running.insert(agentless.clone(), task.abort_handle());
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

async fn repeat(agentless: Agentless, told: mpsc::Sender<ProbeResult>) {
    let mut verdict = Verdict::UNKNOWN;
    let mut next = time::interval(agentless.pace.interval);
    next.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        let limit = agentless.pace.timeout;
        let answer = time::timeout(limit, ask(&agentless)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())));
        if verdict.take(answer.is_ok(), &agentless.pace) {
            let found = ProbeVerdict { passes: verdict.passes(), detail: answer.err().unwrap_or_default() };
            if told.send((agentless.clone(), found)).await.is_err() {
                return;
            }
        }
    }
}

async fn ask(agentless: &Agentless) -> Result<(), String> {
    let Agentless { address, question, pace: _ } = agentless;
    let answer = match question {
        Question::Ping => probe::ping(*address).await,
        Question::Tcp(port) => probe::connect(SocketAddr::new(*address, *port)).await,
        Question::Http { port, path, statuses } => {
            probe::http(SocketAddr::new(*address, *port), path, *statuses).await.map(drop)
        }
    };
    answer.map_err(|error| error.to_string())
}
