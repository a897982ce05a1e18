//! The admin socket: one JSON request a line, its progress and its answer a line each (`vipa_protocol::admin`).

use std::{
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
};
use vipa_protocol::{
    Operator,
    admin::{Answer, Request, Said, Versioned},
};
use vipa_transport::{
    access::{AccessRules, AdminPeer, AdminRole, identify},
    clients::{ClientTasks, Turn},
};

/// Longest request line, bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Clients served at once; of more, one gives way for the next.
const MAX_CLIENTS: usize = 16;
/// Sentences of progress that a client has not read yet; what is beyond is not said.
const MOST_PROGRESS: usize = 8;
/// Half of `vipactl`'s own patience, so that one that finds no place has one before it gives up.
const CLIENT_LIMITS: ClientLimits = ClientLimits { request: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
struct ClientLimits {
    /// For its next request.
    request: Duration,
    /// Until it has read an answer.
    answer: Duration,
}

/// What became of clients that were not served to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientCounts {
    /// Gave way for another client.
    pub(crate) displaced: u64,
    /// Did not read its answer in time.
    pub(crate) slow: u64,
}

/// A question on its way to the control loop, and where its answer goes.
pub(crate) type Question = (Request, Reply);

/// Where a client waits.
#[derive(Debug)]
pub(crate) struct Reply {
    progress: mpsc::Sender<Said>,
    end: oneshot::Sender<Answer>,
    to: Option<Operator>,
}

impl Reply {
    pub(crate) fn new(progress: mpsc::Sender<Said>, end: oneshot::Sender<Answer>) -> Self {
        Self { progress, end, to: None }
    }

    /// With who asks.
    pub(crate) fn to(self, operator: Operator) -> Self {
        Self { to: Some(operator), ..self }
    }

    /// Who asks, if it is known.
    pub(crate) fn operator(&self) -> Option<&Operator> {
        self.to.as_ref()
    }

    /// With the other end of its answer.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, oneshot::Receiver<Answer>) {
        let (end, answer) = oneshot::channel();
        (Self::new(mpsc::channel(MOST_PROGRESS).0, end), answer)
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
    rules: AccessRules,
}

impl AdminSocket {
    /// Opens the socket at `path`, for whom `rules` name.
    ///
    /// A socket file that a killed process left is replaced; one that a live process answers on is an error.
    pub(crate) fn open(path: &Path, rules: AccessRules) -> io::Result<Self> {
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
        rules.protect(path)?;
        Ok(Self { path: path.to_owned(), listener, rules })
    }

    /// Serves clients until the control loop is gone.
    pub(crate) async fn serve(self, questions: mpsc::Sender<Question>, counts: watch::Sender<ClientCounts>) {
        self.serve_within(CLIENT_LIMITS, questions, counts).await;
    }

    async fn serve_within(
        self,
        limits: ClientLimits,
        questions: mpsc::Sender<Question>,
        counts: watch::Sender<ClientCounts>,
    ) {
        let mut clients = ClientTasks::new(MAX_CLIENTS);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = questions.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (questions, counter, rules) = (questions.clone(), counts.clone(), self.rules);
                    let displaced = clients.spawn(|turn| async move {
                        match Client::serve_stream(stream, rules, (limits, turn), questions).await {
                            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                                counter.send_modify(|counts| counts.slow += 1);
                            }
                            Err(error) => tracing::debug!(%error, "an admin client left"),
                            Ok(()) => {}
                        }
                    });
                    if displaced {
                        counts.send_modify(|counts| counts.displaced += 1);
                    }
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

/// One client's connection.
struct Client {
    requests: BufReader<OwnedReadHalf>,
    answers: OwnedWriteHalf,
    limits: ClientLimits,
    turn: Turn,
    peer: AdminPeer,
    /// `None`: it may do nothing.
    role: Option<AdminRole>,
}

impl Client {
    /// Finds out who it is, and answers them.
    async fn serve_stream(
        stream: UnixStream,
        rules: AccessRules,
        (limits, turn): (ClientLimits, Turn),
        questions: mpsc::Sender<Question>,
    ) -> io::Result<()> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        // The user database may be far away.
        let peer = tokio::task::spawn_blocking(move || identify(uid, gid)).await.map_err(io::Error::other)?;
        let role = rules.role(&peer);
        let (requests, answers) = stream.into_split();
        Self { requests: BufReader::new(requests), answers, limits, turn, peer, role }.serve(questions).await
    }

    /// Why this client may not ask that, if it may not.
    fn refusal(&self, request: &Request) -> Option<String> {
        let who = &self.peer.operator;
        match self.role {
            Some(AdminRole::Operate) => None,
            Some(AdminRole::Read) if !request.changes_something() => None,
            Some(AdminRole::Read) => {
                Some(format!("{who} may read here and not order: admin.group in the configuration names who may"))
            }
            None => Some(format!(
                "{who} may not ask here: admin.group and admin.read_group in the configuration name who may"
            )),
        }
    }

    /// Answers its requests until it leaves, or is waited for too long.
    async fn serve(mut self, questions: mpsc::Sender<Question>) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.requests).take(MAX_REQUEST);
            let reading = limited.read_until(b'\n', &mut line);
            let Ok(length) = tokio::time::timeout(self.limits.request, reading).await else { return Ok(()) };
            if length? == 0 {
                return Ok(());
            }
            self.turn.of_server();
            let answer = match serde_json::from_slice::<Versioned<Request>>(&line).map(Versioned::current) {
                Ok(Ok(request)) => match self.refusal(&request) {
                    Some(refusal) => {
                        tracing::warn!("refused at the admin socket: {refusal}");
                        Answer::Error(refusal)
                    }
                    None => self.ask(request, &questions).await?,
                },
                Ok(Err(wrong)) => Answer::Error(wrong.to_string()),
                Err(error) => Answer::Error(format!("not a request this vipad knows: {error}")),
            };
            self.tell(answer).await?;
        }
    }

    /// The answer, after its progress has been told.
    async fn ask(&mut self, request: Request, questions: &mpsc::Sender<Question>) -> io::Result<Answer> {
        let (progress, mut news) = mpsc::channel(MOST_PROGRESS);
        let (end, mut answer) = oneshot::channel();
        let stopping = || Answer::Error("vipad is stopping".into());
        let reply = Reply::new(progress, end).to(self.peer.operator.clone());
        if questions.send((request, reply)).await.is_err() {
            return Ok(stopping());
        }
        loop {
            tokio::select! {
                biased;
                Some(said) = news.recv() => {
                    self.tell(Answer::Progress(said)).await?;
                    self.turn.of_server();
                }
                answer = &mut answer => return Ok(answer.unwrap_or_else(|_| stopping())),
            }
        }
    }

    /// Leaves the turn with the client.
    async fn tell(&mut self, answer: Answer) -> io::Result<()> {
        // That of a thousand VIPAs is a megabyte or more, and the control loop runs on this thread.
        let text = tokio::task::spawn_blocking(|| line(answer)).await.map_err(io::Error::other)??;
        self.turn.of_client();
        tokio::time::timeout(self.limits.answer, self.answers.write_all(&text)).await?
    }
}

/// An answer as it is sent.
fn line(answer: Answer) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&Versioned::new(answer))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
