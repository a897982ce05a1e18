//! The admin socket: one JSON request a line, its progress and its answer a line each (`vipa_protocol::admin`).

use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot},
};
use vipa_protocol::admin::{Answer, Request, Said, Versioned};

/// Longest request line, bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Clients served at once; one more waits for its turn.
const MAX_CLIENTS: usize = 16;
/// A client that says nothing for this long is let go.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Sentences of progress that a client has not read yet; what is beyond is not said.
const MOST_PROGRESS: usize = 8;

/// A question on its way to the control loop, and where its answer goes.
pub(crate) type Question = (Request, Reply);

/// Where a client waits.
#[derive(Debug)]
pub(crate) struct Reply {
    progress: mpsc::Sender<Said>,
    end: oneshot::Sender<Answer>,
}

impl Reply {
    /// With the other end of its answer.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, oneshot::Receiver<Answer>) {
        let (end, answer) = oneshot::channel();
        (Self { progress: mpsc::channel(MOST_PROGRESS).0, end }, answer)
    }

    pub(crate) fn progress(&mut self, said: Said) {
        // A client that reads slowly, or has gone, misses it.
        let _ = self.progress.try_send(said);
    }

    /// The end alone, for what has no progress.
    pub(crate) fn last(self) -> oneshot::Sender<Answer> {
        self.end
    }

    pub(crate) fn end(self, answer: Answer) {
        // The client may have gone; its answer then has no reader.
        let _ = self.end.send(answer);
    }
}

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl AdminSocket {
    /// Opens the socket at `path`, readable and writable by owner and group.
    ///
    /// A socket file that a killed process left is replaced; one that a live process answers on is an error.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if let Ok(existing) = std::fs::symlink_metadata(path) {
            if !existing.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by something else"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another vipad answers there; stop it first"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Serves clients until the control loop is gone.
    pub(crate) async fn serve(self, questions: mpsc::Sender<Question>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CLIENTS));
        while !questions.is_closed() {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve_client(client, questions).await {
                            tracing::debug!(%error, "an admin client left");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket refuses clients");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // It may have been removed by hand; there is nobody to tell.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_client(client: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut lines).take(MAX_REQUEST);
        let reading = limited.read_until(b'\n', &mut line);
        let Ok(length) = tokio::time::timeout(IDLE_LIMIT, reading).await else { return Ok(()) };
        if length? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice::<Versioned<Request>>(&line).map(Versioned::current) {
            Ok(Ok(request)) => ask(request, &questions, &mut write).await?,
            Ok(Err(wrong)) => Answer::Error(wrong.to_string()),
            Err(error) => Answer::Error(format!("not a request this vipad knows: {error}")),
        };
        tell(&mut write, answer).await?;
    }
}

async fn tell(write: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(&Versioned::new(answer))?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// The answer, after its progress has been told.
async fn ask(request: Request, questions: &mpsc::Sender<Question>, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
    let (progress, mut news) = mpsc::channel(MOST_PROGRESS);
    let (end, mut answer) = oneshot::channel();
    let stopping = || Answer::Error("vipad is stopping".into());
    if questions.send((request, Reply { progress, end })).await.is_err() {
        return Ok(stopping());
    }
    loop {
        tokio::select! {
            biased;
            Some(said) = news.recv() => tell(write, Answer::Progress(said)).await?,
            answer = &mut answer => return Ok(answer.unwrap_or_else(|_| stopping())),
        }
    }
}
