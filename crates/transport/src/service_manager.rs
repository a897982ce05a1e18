//! Tells the service manager how this daemon is: systemd's notification protocol, sd_notify(3).
//!
//! ```text
//!   start ──► ready ──► READY=1
//!               │  SIGHUP: RELOADING=1 … READY=1       each second: STATUS=…, where it has changed
//!               │  WATCHDOG=1 each third of WatchdogSec
//!             stopping ──► STOPPING=1
//! ```
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. The socket never blocks the loop that tends it: what the service
//! manager does not take at once is sent later, in the same order. `sd_notify::notify` would wait, so only its words are used.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

/// Between two looks at the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Messages that the service manager has not taken yet. Of more, the oldest go.
const MOST_UNSENT: usize = 16;
/// Bytes of a status: one line of `systemctl status`.
const LONGEST_STATUS: usize = 256;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Between two signs of life.
    watchdog_every: Option<Duration>,
    watchdog_next: Option<Instant>,
    status_next: Option<Instant>,
    /// As told last.
    status: String,
    is_ready: bool,
    is_reloading: bool,
    unsent: VecDeque<String>,
}

impl ServiceManager {
    /// The service manager that this process's environment names. One that cannot be reached is told nothing, and the log says so.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::new(None, None) };
        let socket = connect(&address);
        if let Err(error) = &socket {
            tracing::warn!("the service manager's socket {} cannot be used: {error}", address.display());
        }
        Self::new(socket.ok(), sd_notify::watchdog_enabled())
    }

    fn new(socket: Option<UnixDatagram>, watchdog: Option<Duration>) -> Self {
        // A loop that is late by two thirds of the time is not killed yet.
        let watchdog_every = watchdog.filter(|every| !every.is_zero()).map(|every| every / 3);
        Self {
            socket,
            watchdog_every,
            watchdog_next: None,
            status_next: None,
            status: String::new(),
            is_ready: false,
            is_reloading: false,
            unsent: VecDeque::new(),
        }
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The daemon does its work from now on: units that wait for it start.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.send(&[NotifyState::Ready]);
        }
    }

    /// The configuration is being read again.
    pub fn reloading(&mut self) {
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            self.is_reloading = true;
            self.send(&[NotifyState::Reloading, since]);
        }
    }

    /// It has been taken up or refused.
    pub fn reloaded(&mut self) {
        if std::mem::take(&mut self.is_reloading) {
            self.send(&[NotifyState::Ready]);
        }
    }

    /// The daemon has begun to end.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// The loop's sign of life, and its status where that has changed. Costs nothing between times: call it each turn.
    pub fn tend(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        self.flush();
        if let Some(every) = self.watchdog_every
            && self.watchdog_next.is_none_or(|next| now >= next)
        {
            self.watchdog_next = Some(now + every);
            self.send(&[NotifyState::Watchdog]);
        }
        if self.status_next.is_none_or(|next| now >= next) {
            self.status_next = Some(now + STATUS_EVERY);
            let mut status = status().replace('\n', " ");
            let end = (0..=LONGEST_STATUS).rev().find(|&end| status.is_char_boundary(end));
            status.truncate(end.unwrap_or_default());
            if status != self.status {
                self.send(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if self.socket.is_none() {
            return;
        }
        if self.unsent.len() == MOST_UNSENT {
            self.unsent.pop_front();
        }
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        self.unsent.push_back(lines.join("\n"));
        self.flush();
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(message) = self.unsent.front() {
            match socket.send(message.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!("the service manager was not told: {error}"),
            }
            self.unsent.pop_front();
        }
    }
}

/// `address` is a path, or a name of the abstract namespace after an `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is no Unix socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Systemd {
        _folder: tempfile::TempDir,
        socket: UnixDatagram,
    }

    impl Systemd {
        fn start(watchdog: Option<Duration>) -> (Self, ServiceManager) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let manager = ServiceManager::new(Some(connect(path.as_os_str()).unwrap()), watchdog);
            (Self { _folder: folder, socket }, manager)
        }

        fn told(&self) -> Vec<String> {
            let mut buffer = [0; 1024];
            std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
                .map(|message| String::from_utf8(message).unwrap())
                .collect()
        }
    }

    #[test]
    fn readiness_is_told_once_and_after_each_reload_again() {
        let (systemd, mut manager) = Systemd::start(None);
        manager.ready();
        manager.ready();
        assert_eq!(systemd.told(), ["READY=1"]);
        manager.reloaded();
        assert!(systemd.told().is_empty(), "nobody has begun a reload");
        manager.reloading();
        manager.reloaded();
        manager.stopping();
        let told = systemd.told();
        assert!(told[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told:?}");
        assert_eq!(told[1..], ["READY=1", "STOPPING=1"]);
    }

    #[test]
    fn the_watchdog_hears_each_third_of_its_time_and_a_status_is_told_where_it_changes() {
        let (systemd, mut manager) = Systemd::start(Some(Duration::from_secs(30)));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        manager.tend(start, || "owns\n1".into());
        assert_eq!(systemd.told(), ["WATCHDOG=1", "STATUS=owns 1"]);
        manager.tend(at(0), || unreachable!("the status is looked at once a second"));
        manager.tend(at(9), || "owns 1".into());
        assert!(systemd.told().is_empty());
        manager.tend(at(10), || "é".repeat(300));
        let told = systemd.told();
        assert_eq!((told[0].as_str(), told[1].len()), ("WATCHDOG=1", "STATUS=".len() + LONGEST_STATUS));
    }

    #[test]
    fn a_service_manager_that_reads_nothing_blocks_nobody_and_hears_the_rest_later() {
        let (systemd, mut manager) = Systemd::start(Some(Duration::from_millis(1)));
        let (start, mut turn) = (Instant::now(), 0);
        while manager.unsent.len() < MOST_UNSENT {
            turn += 1;
            assert!(turn < 100_000, "the socket's queue has an end");
            manager.tend(start + Duration::from_millis(turn), String::new);
        }
        manager.stopping();
        assert_eq!(manager.unsent.len(), MOST_UNSENT);
        // The socket's queue is shorter than what waits here.
        let mut told = systemd.told();
        while !manager.unsent.is_empty() {
            manager.tend(start, String::new);
            told.extend(systemd.told());
        }
        assert_eq!(told.last().map(String::as_str), Some("STOPPING=1"));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let mut manager = ServiceManager::new(None, None);
        manager.ready();
        manager.tend(Instant::now(), || unreachable!("nobody asks"));
        assert!(manager.is_ready());
        assert_eq!(connect(OsStr::new("vsock:2:1")).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
