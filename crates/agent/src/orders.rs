//! The socket of the running agent, for `vipa-agent drain` and `vipa-agent status`.
//!
//! ```text
//!   one line of JSON, a wish ──► "status", {"drain":{"timeout_s":60}}, "cancel"
//!   ◄── lines of JSON            one `Status`, or a `Progress` now and then
//! ```
//! `vipactl status` and `vipactl health` are answered there as a router answers them (`vipa_protocol::admin`). A Unix socket, for whom
//! `[admin]` names: nothing of the agent can be reached over the network.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time,
};
use vipa_protocol::{
    AgentStatus,
    admin::{Answer, Request, Versioned},
    assess_agent,
};
use vipa_transport::{
    access::{AccessRules, AdminRole, identify},
    clients::{ClientTasks, Turn},
};

use crate::drain::Progress;

const MAX_ORDER: u64 = 4096;
/// Clients at one time; when there are more, one is disconnected for the next.
const MAX_CLIENTS: usize = 8;
/// Time for a client to send its request, and to read a reply.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// Replies kept for a client that does not read.
const WORDS: usize = 16;

/// A request to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// Report the status.
    Status,
    Drain {
        /// `None`: as long as it takes.
        timeout_s: Option<u64>,
    },
    /// Serve again.
    Cancel,
}

impl Wish {
    fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Drain { .. } => "drain",
            Self::Cancel => "drain --cancel",
        }
    }
}

/// The agent's reply; the client knows from its request which kind to expect.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Word {
    Progress(Progress),
    Status(Box<AgentStatus>),
}

/// A request on its way to the agent's loop, and the channel for its replies.
pub(crate) type Order = (Wish, mpsc::Sender<Word>);

/// The socket that accepts requests; its file is removed with it.
#[derive(Debug)]
pub(crate) struct OrderSocket {
    path: PathBuf,
    orders: mpsc::Receiver<Order>,
}

impl OrderSocket {
    /// Opens it at `path`, for the owner and the group. A file that a killed agent left is replaced.
    pub(crate) fn open(path: &Path, rules: AccessRules) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program answers there; stop it first"));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        rules.protect(path)?;
        let (orders_in, orders) = mpsc::channel(MAX_CLIENTS);
        tokio::spawn(accept(listener, rules, orders_in));
        Ok(Self { path: path.to_owned(), orders })
    }

    pub(crate) async fn recv(&mut self) -> Option<Order> {
        self.orders.recv().await
    }
}

impl Drop for OrderSocket {
    fn drop(&mut self) {
        // It may have been removed by hand; there is nothing to report.
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, rules: AccessRules, orders: mpsc::Sender<Order>) {
    let mut clients = ClientTasks::new(MAX_CLIENTS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = orders.closed() => return,
        };
        let Ok((client, _)) = accepted else {
            time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let orders = orders.clone();
        let displaced = clients.spawn(|turn| async move {
            if let Err(error) = serve(client, rules, turn, orders).await {
                tracing::debug!(%error, "who asked has gone, or is too slow");
            }
        });
        if displaced {
            tracing::debug!("the client that was waited for longest has given way for another");
        }
    }
}

async fn serve(client: UnixStream, rules: AccessRules, turn: Turn, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let limit = CLIENT_LIMIT;
    let credentials = client.peer_cred()?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let peer = tokio::task::spawn_blocking(move || identify(uid, gid)).await.map_err(io::Error::other)?;
    let role = rules.role(&peer);
    let (read, mut write) = client.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(read).take(MAX_ORDER);
    time::timeout(limit, limited.read_until(b'\n', &mut line)).await??;
    // `vipactl` asks as it asks a router.
    if let Ok(request) = serde_json::from_slice::<Versioned<Request>>(&line) {
        turn.of_server();
        let answer = match (request.current(), role) {
            (Err(wrong), _) => Answer::Error(wrong.to_string()),
            (Ok(_), None) => {
                Answer::Error(format!("{} may not ask here: see [admin] in the configuration", peer.operator))
            }
            (Ok(Request::Status), Some(_)) => ask_status(&orders).await.map_or_else(stopping, Answer::Agent),
            (Ok(Request::Health), Some(_)) => {
                ask_status(&orders).await.map_or_else(stopping, |status| Answer::Health(assess_agent(&status)))
            }
            (Ok(_), Some(_)) => {
                Answer::Error("this is a target's agent, which answers `status` and `health`; ask a router".into())
            }
        };
        let mut text = serde_json::to_vec(&Versioned::new(answer))?;
        text.push(b'\n');
        turn.of_client();
        return time::timeout(limit, write.write_all(&text)).await?;
    }
    let wish = serde_json::from_slice(&line)?;
    let is_allowed = match wish {
        Wish::Status => role.is_some(),
        Wish::Drain { .. } | Wish::Cancel => role == Some(AdminRole::Operate),
    };
    if !is_allowed {
        tracing::warn!("refused at the socket: {} asked for {}", peer.operator, wish.name());
        let refusal =
            format!("{{\"refused\":\"{} may not ask that here: see [admin] in the configuration\"}}\n", peer.operator);
        return time::timeout(limit, write.write_all(refusal.as_bytes())).await?;
    }
    let (told, mut words) = mpsc::channel(WORDS);
    if orders.send((wish, told)).await.is_err() {
        return Ok(());
    }
    turn.of_server();
    while let Some(word) = words.recv().await {
        let mut text = serde_json::to_vec(&word)?;
        text.push(b'\n');
        turn.of_client();
        time::timeout(limit, write.write_all(&text)).await??;
        turn.of_server();
    }
    Ok(())
}

fn stopping() -> Answer {
    Answer::Error("vipa-agent is stopping".into())
}

/// What the agent's loop says of itself.
async fn ask_status(orders: &mpsc::Sender<Order>) -> Option<Box<AgentStatus>> {
    let (told, mut words) = mpsc::channel(1);
    orders.send((Wish::Status, told)).await.ok()?;
    match words.recv().await? {
        Word::Status(status) => Some(status),
        Word::Progress(_) => None,
    }
}

#[cfg(test)]
mod tests;
