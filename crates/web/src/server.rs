//! The API's socket and its thread: who connects is found out here, and served as one task of a bounded number.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
};
use tokio_rustls::TlsAcceptor;
use vipa_model::config::{Api, ApiListen, ApiTls, Config};
use vipa_transport::clients::{ClientTasks, Turn};

use crate::{
    AdminHandler, ApiLimits,
    access::{self, Client, Identity},
    limits::{AddressSlot, Addresses, WriteTimeout},
    service::{HostRule, Service, Session},
    tls::{self, Files, TlsError},
};

/// Threads beside the one that waits: they write long answers, and look users up.
const HELPERS: usize = 4;
/// What is under way when the router stops has so long to end.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// After an error of the socket itself.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two lines of the log about clients that were turned away.
const TURNED_AWAY_QUIET: Duration = Duration::from_secs(60);

/// Why there is no API; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("[api] cannot listen on {place}: {source}; is it this machine's address, and free?")]
    Listen { place: String, source: io::Error },
    #[error("[api] {0}; `vipactl pki issue NODE --router` and `vipactl pki client NAME` make such files")]
    Tls(#[from] TlsError),
    #[error("the API's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// The open socket of the API, which nobody serves yet.
pub struct ApiListener {
    socket: Socket,
    page: bool,
}

enum Socket {
    Unix(UnixListener, SocketFile),
    Loopback(TcpListener),
    Tls(TcpListener, ApiTls, Files, Arc<ServerConfig>),
}

/// A Unix socket's file; it goes with the API.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed by hand; there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ApiListener {
    /// Reads the certificates and opens the socket.
    pub fn open(api: &Api) -> Result<Self, ApiError> {
        let listen = |place: String| move |source| ApiError::Listen { place, source };
        let tcp = |address: &SocketAddr| {
            let listener = TcpListener::bind(address).map_err(listen(address.to_string()))?;
            listener.set_nonblocking(true).map_err(listen(address.to_string()))?;
            Ok::<_, ApiError>(listener)
        };
        let socket = match &api.listen {
            ApiListen::Unix(path) => {
                let listener = bind(path).map_err(listen(path.display().to_string()))?;
                Socket::Unix(listener, SocketFile(path.clone()))
            }
            ApiListen::Loopback(address) => Socket::Loopback(tcp(address)?),
            ApiListen::Tls(tls) => {
                let files = Files::read(tls)?;
                let config = files.server(tls)?;
                Socket::Tls(tcp(&tls.address)?, tls.clone(), files, config)
            }
        };
        Ok(Self { socket, page: api.page })
    }

    /// The TCP address, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Unix(..) => None,
            Socket::Loopback(listener) | Socket::Tls(listener, ..) => listener.local_addr().ok(),
        }
    }

    /// Serves it on a thread of its own, until what is returned is dropped.
    pub fn start(
        self,
        control: AdminHandler,
        configs: watch::Receiver<Arc<Config>>,
        limits: ApiLimits,
    ) -> Result<ApiServer, ApiError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(HELPERS).build().map_err(ApiError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let service = Arc::new(Service::new(control, configs, limits, self.page));
        let thread = Builder::new().name("api".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = serve(self.socket, service) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "there is no API until vipad is started again");
                        }
                    }
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(STOP_LIMIT);
        });
        Ok(ApiServer { stop: Some(stop), thread: Some(thread.map_err(ApiError::Thread)?) })
    }
}

/// A running API; dropped, it ends.
#[derive(Debug)]
pub struct ApiServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the API's thread panicked");
        }
    }
}

/// A socket at `path` that every user of this host may connect to: what each may do, its groups say. The file of a process that was
/// killed is replaced; one that a live process answers on is an error.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by something else"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there; stop it first"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What all tasks are made of.
struct Hall {
    tasks: ClientTasks,
    service: Arc<Service>,
    addresses: Addresses,
    turned_away: u64,
    told: Option<Instant>,
}

impl Hall {
    fn new(service: Arc<Service>) -> Self {
        let ApiLimits { connections, per_address, .. } = service.limits;
        Self {
            tasks: ClientTasks::new(connections),
            service,
            addresses: Addresses::new(per_address),
            turned_away: 0,
            told: None,
        }
    }

    /// A place for a connection from `address`, if it may have one more.
    fn place(&mut self, address: SocketAddr) -> Option<AddressSlot> {
        let slot = self.addresses.take(address.ip().to_canonical());
        if slot.is_none() {
            self.turn_away();
        }
        slot
    }

    fn spawn<F>(&mut self, serve: impl FnOnce(Turn) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.tasks.spawn(serve) {
            self.turn_away();
        }
    }

    fn turn_away(&mut self) {
        self.turned_away += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TURNED_AWAY_QUIET) {
            let times = std::mem::take(&mut self.turned_away);
            tracing::warn!(times, "the API has more clients than places, and has closed connections");
            self.told = Some(Instant::now());
        }
    }
}

async fn serve(socket: Socket, service: Arc<Service>) -> io::Result<()> {
    let mut hall = Hall::new(Arc::clone(&service));
    match socket {
        Socket::Unix(listener, _file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
                let Ok(peer) = stream.peer_cred() else { continue };
                let client = Client { identity: Identity::User { uid: peer.uid(), gid: peer.gid() }, address: None };
                let service = Arc::clone(&hall.service);
                hall.spawn(|turn| exchange(stream, service, Session { client, turn, host: HostRule::Local }));
            }
        }
        Socket::Loopback(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let Some((stream, address)) = accepted(listener.accept().await).await else { continue };
                let Some(slot) = hall.place(address) else { continue };
                let client = Client { identity: Identity::Anybody, address: Some(address.ip()) };
                let service = Arc::clone(&hall.service);
                hall.spawn(|turn| async move {
                    let _slot = slot;
                    exchange(stream, service, Session { client, turn, host: HostRule::Local }).await;
                });
            }
        }
        Socket::Tls(listener, files_of, files, config) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (configs, config) = watch::channel(config);
            tokio::spawn(tls::watch(files_of, files, configs));
            loop {
                let Some((stream, address)) = accepted(listener.accept().await).await else { continue };
                let Some(slot) = hall.place(address) else { continue };
                let (service, config) = (Arc::clone(&hall.service), Arc::clone(&config.borrow()));
                hall.spawn(|turn| async move {
                    let _slot = slot;
                    let handshake = TlsAcceptor::from(config).accept(stream);
                    let shaken = tokio::time::timeout(service.limits.head, handshake).await;
                    // Nobody has proved to be anybody: what a stranger sends is not worth a line.
                    let Ok(Ok(stream)) = shaken else { return };
                    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let Some(identity) = certificates.first().and_then(access::certificate) else {
                        tracing::info!(%address, "a client of the API has a certificate that names nobody: it needs one DNS name, or a common name");
                        return;
                    };
                    let client = Client { identity, address: Some(address.ip().to_canonical()) };
                    exchange(stream, service, Session { client, turn, host: HostRule::Any }).await;
                });
            }
        }
    }
}

/// A connection, or a pause after an error: the process may have no descriptor left.
async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::warn!(%error, "the API's socket accepts no client");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Answers a connection's requests until it ends, or its client takes too long.
async fn exchange<S>(stream: S, service: Arc<Service>, session: Session)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ApiLimits { head, head_bytes, head_lines, stalled, .. } = service.limits;
    let stream = TokioIo::new(WriteTimeout::new(stream, stalled));
    let answer = service_fn(move |request| {
        let (service, session) = (Arc::clone(&service), session.clone());
        async move { Ok::<_, std::convert::Infallible>(service.serve(session, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(head_bytes)
        .max_headers(head_lines)
        .serve_connection(stream, answer);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client of the API left");
    }
}
