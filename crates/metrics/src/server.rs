//! The HTTP server: `GET /metrics`, and nothing else.
//!
//! It runs on a thread and a runtime of its own. Whatever a client does, the program's main loop is asked for a snapshot at most
//! once in [`FRESH`]; clients, their requests and their time are bounded.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout},
};
use vipa_model::config::MetricsListen;

use crate::{Format, Snapshot, exposition};

/// Clients served at once; of more, the one that came first gives way.
const MAX_CLIENTS: usize = 8;
/// A client's request must be there after this.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// A client is done after this, or is left: Prometheus gives up after ten seconds itself.
const CLIENT_TIME: Duration = Duration::from_secs(15);
/// Bytes of a request's line and headers; what is longer is refused.
const MAX_REQUEST: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// A snapshot serves everybody who asks within this time.
const FRESH: Duration = Duration::from_millis(500);
/// The program's main loop has this long to give a snapshot.
const SNAPSHOT_TIME: Duration = Duration::from_secs(2);
/// After an error of accept, such as no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the program's main loop puts the snapshot that it is asked for.
pub type SnapshotRequest = oneshot::Sender<Snapshot>;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("[metrics] listen: cannot listen on {address}; is another program there?")]
    Bind { address: String, source: io::Error },
    #[error("cannot start the thread that serves metrics")]
    Thread(#[source] io::Error),
}

/// The running server; dropped, it ends, and its socket's file goes with it.
#[derive(Debug)]
pub struct MetricsServer {
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
    /// Of a Unix socket.
    file: Option<PathBuf>,
    port: Option<u16>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl MetricsServer {
    /// Listens, and serves from a thread of its own. Each element that comes out of `requests`' other end is a scrape that
    /// waits for its snapshot.
    pub fn start(listen: &MetricsListen, requests: mpsc::Sender<SnapshotRequest>) -> Result<Self, ServerError> {
        let refused = |source| ServerError::Bind { address: listen.to_string(), source };
        let (listener, file, port) = match listen {
            MetricsListen::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                let port = listener.local_addr().map_err(refused)?.port();
                (Listener::Tcp(listener), None, Some(port))
            }
            MetricsListen::Unix(path) => {
                let listener = open_unix(path).map_err(refused)?;
                (Listener::Unix(listener), Some(path.clone()), None)
            }
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = serve(listener, requests) => {}
                    }
                });
            })
            .map_err(ServerError::Thread)?;
        tracing::info!(%listen, "metrics are served");
        Ok(Self { stop: Some(stop), thread: Some(thread), file, port })
    }

    /// The TCP port that it listens on.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that served metrics had panicked");
        }
        if let Some(file) = &self.file {
            // It may be gone already.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Opens a socket that owner and group may use. A socket's file that a killed process left is replaced.
fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by something else"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: Listener, requests: mpsc::Sender<SnapshotRequest>) {
    let scrapes = Arc::new(Scrapes { requests, last: Mutex::new(None) });
    let mut clients = Clients(VecDeque::new());
    match listener {
        Listener::Tcp(listener) => {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => clients.spawn(client(stream, Arc::clone(&scrapes))),
                    Err(error) => pause(&error).await,
                }
            }
        }
        Listener::Unix(listener) => {
            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => clients.spawn(client(stream, Arc::clone(&scrapes))),
                    Err(error) => pause(&error).await,
                }
            }
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "no client of the metrics can be accepted");
    tokio::time::sleep(PAUSE).await;
}

/// The tasks of the clients, the oldest first.
struct Clients(VecDeque<AbortHandle>);

impl Clients {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|task| !task.is_finished());
        if self.0.len() >= MAX_CLIENTS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(tokio::spawn(task).abort_handle());
    }
}

async fn client(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, scrapes: Arc<Scrapes>) {
    let service = service_fn(move |request| {
        let scrapes = Arc::clone(&scrapes);
        async move { Ok::<_, Infallible>(answer(&scrapes, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CLIENT_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client of the metrics was not served to its end"),
        Err(_) => tracing::debug!("a client of the metrics was too slow"),
    }
}

async fn answer(scrapes: &Scrapes, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {}
        (_, "/metrics") => {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read by GET\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        _ => return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"),
    }
    let format = Format::accepted(request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match scrapes.text(format).await {
        Ok(text) => {
            let mut response = Response::new(Full::new(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn plain(status: StatusCode, sentence: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(sentence.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The snapshots, one at a time.
struct Scrapes {
    requests: mpsc::Sender<SnapshotRequest>,
    last: Mutex<Option<Taken>>,
}

/// A snapshot and its texts.
struct Taken {
    at: Instant,
    snapshot: Arc<Snapshot>,
    prometheus: Option<Bytes>,
    openmetrics: Option<Bytes>,
}

impl Scrapes {
    async fn text(&self, format: Format) -> Result<Bytes, &'static str> {
        // Whoever comes while a snapshot is under way waits for that one.
        let mut last = self.last.lock().await;
        if last.as_ref().is_none_or(|taken| taken.at.elapsed() >= FRESH) {
            *last = None;
            let snapshot = Arc::new(self.snapshot().await?);
            *last = Some(Taken { at: Instant::now(), snapshot, prometheus: None, openmetrics: None });
        }
        let Some(taken) = last.as_mut() else { return Err("there is no snapshot\n") };
        let text = match format {
            Format::Prometheus => &mut taken.prometheus,
            Format::OpenMetrics => &mut taken.openmetrics,
        };
        if let Some(text) = text {
            return Ok(text.clone());
        }
        let made = exposition::expose(Arc::clone(&taken.snapshot), format).map_err(|_| "the metrics have no text\n")?;
        Ok(text.insert(made.into()).clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, &'static str> {
        let (reply, snapshot) = oneshot::channel();
        // Full: the main loop has not taken the one before.
        self.requests.try_send(reply).map_err(|_| "the main loop is not ready yet, or stands still\n")?;
        match timeout(SNAPSHOT_TIME, snapshot).await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(_)) => Err("the program is stopping\n"),
            Err(_) => Err("the main loop has given no snapshot within 2 s\n"),
        }
    }
}
