//! Leaving without breaking anything: no new connections, those there are run out, then the agent goes.
//!
//! ```text
//!   vipa-agent drain ── one line of JSON ──► socket of the running agent      {"drain":{"timeout_s":60}}, "cancel"
//!                    ◄── a line now and then ──                               {"connections":12,"left_s":48,…}
//! ```
//! The same begins with SIGTERM where `drain_timeout_s` says so.

use std::{
    fs, io,
    io::{BufRead, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{self, Instant},
};

/// A host without connections leaves after this long at the earliest: routers hear of it, and what is on the way arrives.
pub(crate) const NOTICE: Duration = Duration::from_secs(1);
/// Between two looks at what is left, each told to those who wait.
pub(crate) const LOOK: Duration = Duration::from_millis(200);
/// A drain that nobody limits ends after this long.
const LONGEST: Duration = Duration::from_secs(86_400);
const MAX_ORDER: u64 = 4096;
/// Clients at one time; one more is let go.
const MAX_CLIENTS: usize = 8;
/// Words kept for a client that does not read.
const WORDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    Drain {
        /// `None`: as long as it takes.
        timeout_s: Option<u64>,
    },
    /// Serve again.
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Live connections to the VIPAs.
    pub(crate) connections: u64,
    /// Until it leaves whatever there is.
    pub(crate) left_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Draining,
    /// Nothing is left: the agent leaves.
    Drained,
    /// Time is over: the agent leaves all the same.
    OutOfTime,
    /// It serves, as it was asked to.
    Serving,
}

/// A wish on its way to the agent's loop, and where its progress goes.
pub(crate) type Order = (Wish, mpsc::Sender<Progress>);

/// A drain under way. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    began: Instant,
    until: Instant,
}

impl Drain {
    pub(crate) fn begin(now: Instant, timeout: Option<Duration>) -> Self {
        Self { began: now, until: now + timeout.unwrap_or(LONGEST).min(LONGEST) }
    }

    pub(crate) fn progress(&self, now: Instant, connections: u64) -> Progress {
        let left = self.until.saturating_duration_since(now);
        let stage = match connections {
            0 if now.duration_since(self.began) >= NOTICE => Stage::Drained,
            _ if left.is_zero() => Stage::OutOfTime,
            _ => Stage::Draining,
        };
        Progress { stage, connections, left_s: left.as_secs_f64().ceil() as u64 }
    }
}

impl Stage {
    pub(crate) fn leaves(self) -> bool {
        matches!(self, Self::Drained | Self::OutOfTime)
    }
}

/// The socket that takes wishes; its file goes with it.
#[derive(Debug)]
pub(crate) struct DrainSocket {
    path: PathBuf,
    orders: mpsc::Receiver<Order>,
}

impl DrainSocket {
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

impl Drop for DrainSocket {
    fn drop(&mut self) {
        // It may have been removed by hand; there is nobody to tell.
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<Order>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CLIENTS));
    while !orders.is_closed() {
        let Ok((client, _)) = listener.accept().await else {
            time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        if let Ok(place) = std::sync::Arc::clone(&places).try_acquire_owned() {
            let orders = orders.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(client, orders).await {
                    tracing::debug!(%error, "who asked for a drain has gone");
                }
                drop(place);
            });
        }
    }
}

async fn serve(client: UnixStream, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(read).take(MAX_ORDER);
    time::timeout(Duration::from_secs(10), limited.read_until(b'\n', &mut line)).await??;
    let wish = serde_json::from_slice(&line)?;
    let (told, mut progress) = mpsc::channel(WORDS);
    if orders.send((wish, told)).await.is_err() {
        return Ok(());
    }
    while let Some(word) = progress.recv().await {
        let mut text = serde_json::to_vec(&word)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
    Ok(())
}

/// `vipa-agent drain`: tells the running agent, and prints how it goes. False: connections were left when time was over.
pub(crate) fn ask(socket: &Path, wish: Wish) -> anyhow::Result<bool> {
    use anyhow::Context;
    let shown = socket.display();
    let mut stream = std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("no agent answers on {shown}; does it run, and with this configuration?"))?;
    stream.write_all(&[&serde_json::to_vec(&wish)?[..], b"\n"].concat())?;
    let mut last: Option<Progress> = None;
    for line in std::io::BufReader::new(stream).lines() {
        let line = line.context("the agent has gone without a word")?;
        let progress: Progress = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
        let Progress { stage, connections, left_s } = progress;
        match stage {
            Stage::Draining if last.is_some_and(|last| last.connections == connections) => {}
            Stage::Draining => println!("draining: {connections} connection(s) left, {left_s} s at most"),
            Stage::Drained => println!("drained: no connection left; the agent leaves"),
            Stage::OutOfTime => println!("time is over with {connections} connection(s) left; the agent leaves"),
            Stage::Serving => println!("serving: new connections are welcome again"),
        }
        last = Some(progress);
    }
    match last.map(|last| last.stage) {
        Some(Stage::Serving) if wish != Wish::Cancel => anyhow::bail!("somebody else has asked it to serve again"),
        None | Some(Stage::Draining) => anyhow::bail!("the agent has ended before the drain was over"),
        Some(Stage::OutOfTime) => Ok(false),
        Some(Stage::Drained | Stage::Serving) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_with_its_last_connection_or_its_time_and_never_before_routers_have_heard_of_it() {
        let began = Instant::now();
        let drain = Drain::begin(began, Some(Duration::from_secs(10)));
        let at = |ms: u64, connections| drain.progress(began + Duration::from_millis(ms), connections);
        assert_eq!(at(0, 0), Progress { stage: Stage::Draining, connections: 0, left_s: 10 });
        assert_eq!(at(1_000, 0).stage, Stage::Drained);
        assert_eq!(at(9_500, 2), Progress { stage: Stage::Draining, connections: 2, left_s: 1 });
        assert_eq!(at(10_000, 2), Progress { stage: Stage::OutOfTime, connections: 2, left_s: 0 });
        let patient = Drain::begin(began, None);
        assert_eq!(patient.progress(began + Duration::from_secs(80_000), 1).stage, Stage::Draining);
    }
}
