//! The socket of the running agent: `vipa-agent drain` and `vipa-agent status` ask there.
//!
//! ```text
//!   one line of JSON, a wish ──► "status", {"drain":{"timeout_s":60}}, "cancel"
//!   ◄── lines of JSON            one `Status`, or a `Progress` now and then
//! ```
//! A Unix socket, for its owner and group: nothing of the agent can be reached over the network.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
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
use vipa_transport::clients::{ClientTasks, Turn};

use crate::{drain::Progress, status::Status};

const MAX_ORDER: u64 = 4096;
/// Clients at one time; of more, one gives way for the next.
const MAX_CLIENTS: usize = 8;
/// How long a client may take to say its wish, and to read a word.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// Words kept for a client that does not read.
const WORDS: usize = 16;

/// What somebody asks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// Say how it is.
    Status,
    Drain {
        /// `None`: as long as it takes.
        timeout_s: Option<u64>,
    },
    /// Serve again.
    Cancel,
}

/// What the agent says to that; whoever asked knows what to expect.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Word {
    Progress(Progress),
    Status(Box<Status>),
}

/// A wish on its way to the agent's loop, and where its words go.
pub(crate) type Order = (Wish, mpsc::Sender<Word>);

/// The socket that takes wishes; its file goes with it.
#[derive(Debug)]
pub(crate) struct OrderSocket {
    path: PathBuf,
    orders: mpsc::Receiver<Order>,
}

impl OrderSocket {
    /// Opens it at `path`, for the owner and the group. A file that a killed agent left is replaced.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
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
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        let (orders_in, orders) = mpsc::channel(MAX_CLIENTS);
        tokio::spawn(accept(listener, orders_in));
        Ok(Self { path: path.to_owned(), orders })
    }

    pub(crate) async fn recv(&mut self) -> Option<Order> {
        self.orders.recv().await
    }
}

impl Drop for OrderSocket {
    fn drop(&mut self) {
        // It may have been removed by hand; there is nobody to tell.
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<Order>) {
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
            if let Err(error) = serve(client, turn, orders, CLIENT_LIMIT).await {
                tracing::debug!(%error, "who asked has gone, or is too slow");
            }
        });
        if displaced {
            tracing::debug!("the client that was waited for longest has given way for another");
        }
    }
}

async fn serve(client: UnixStream, turn: Turn, orders: mpsc::Sender<Order>, limit: Duration) -> io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(read).take(MAX_ORDER);
    time::timeout(limit, limited.read_until(b'\n', &mut line)).await??;
    let wish = serde_json::from_slice(&line)?;
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

#[cfg(test)]
mod tests;
