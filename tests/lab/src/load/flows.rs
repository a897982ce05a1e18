//! UDP flows that each keep their port, and servers that answer with their name: which server gets which flow.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::netns::Host;

/// Time after which a datagram without an answer is sent again.
const ANSWER: Duration = Duration::from_millis(500);
/// Interval at which a server checks whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// A UDP server on a host. It ends when it is dropped.
#[derive(Debug)]
pub struct UdpServer {
    _wanted: Arc<()>,
}

impl UdpServer {
    /// Answers every datagram to `listen` with the datagram and the host's name.
    pub fn start(host: &Host, listen: SocketAddr) -> Result<Self> {
        let socket = host.inside(move || UdpSocket::bind(listen))?.with_context(|| format!("cannot bind {listen}"))?;
        socket.set_read_timeout(Some(LOOK))?;
        let wanted = Arc::new(());
        let (still_wanted, name) = (Arc::downgrade(&wanted), host.name().to_owned());
        std::thread::spawn(move || serve(&socket, &name, &still_wanted));
        Ok(Self { _wanted: wanted })
    }
}

fn serve(socket: &UdpSocket, name: &str, wanted: &Weak<()>) {
    let mut bytes = [0; 64];
    while wanted.strong_count() > 0 {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let answer = [&bytes[..length], name.as_bytes()].concat();
        // A client repeats a datagram that has no answer.
        let _ = socket.send_to(&answer, from);
    }
}

/// Client sockets with one port each.
#[derive(Debug)]
pub struct UdpFlows {
    sockets: Vec<UdpSocket>,
    /// Number of the last datagram of each flow.
    asked: u32,
}

impl UdpFlows {
    /// Opens `count` sockets on a host, all for one service. Sends nothing.
    pub fn open(host: &Host, service: SocketAddr, count: usize) -> Result<Self> {
        let open = move || -> std::io::Result<Vec<UdpSocket>> {
            let socket = || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(service)?;
                Ok(socket)
            };
            (0..count).map(|_| socket()).collect()
        };
        Ok(Self { sockets: host.inside(open)??, asked: 0 })
    }

    /// Sends a datagram on each flow; returns the name of the server that answers, by flow.
    pub fn ask(&mut self, patience: Duration) -> Result<Vec<String>> {
        self.asked += 1;
        let number = self.asked.to_be_bytes();
        let until = Instant::now() + patience;
        // A refused datagram counts as a lost one.
        self.sockets.iter().for_each(|socket| drop(socket.send(&number)));
        let one = |(flow, socket): (usize, &UdpSocket)| loop {
            if let Some(name) = answer(socket, number)? {
                return Ok(name);
            }
            if Instant::now() >= until {
                bail!("flow {flow} has had no answer for {patience:?}");
            }
            drop(socket.send(&number));
        };
        self.sockets.iter().enumerate().map(one).collect()
    }

    /// How many flows each server has.
    #[must_use]
    pub fn by_server(servers: &[String]) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        servers.iter().for_each(|server| *counts.entry(server.as_str()).or_default() += 1);
        counts
    }
}

/// The server's name in the answer to this datagram; `None`: no answer in time.
fn answer(socket: &UdpSocket, number: [u8; 4]) -> Result<Option<String>> {
    let until = Instant::now() + ANSWER;
    let mut bytes = [0; 64];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut bytes) {
            Ok(length) => match bytes[..length].split_at_checked(4) {
                Some((answered, name)) if answered == number => {
                    return Ok(Some(String::from_utf8_lossy(name).into_owned()));
                }
                // The late answer to an earlier one.
                _ => {}
            },
            Err(_) => return Ok(None),
        }
    }
}
