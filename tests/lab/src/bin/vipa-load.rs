//! Both ends of the lab's load: real TCP connections that verify every byte. See `vipa_lab::load`.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use vipa_lab::load::{
    ClientSettings, Ending, Flags, ForgedSettings, HandshakeSettings, RequestSettings, ServerSettings, SpoofSettings,
    SpraySettings, Voice, announcements, ask, echo, flood, forge, handshakes, request, run, serve, spoof, spray, web,
};
use vipa_lab::{hostile::attack, replay::replay};

#[derive(Parser)]
#[command(name = "vipa-load", about = "Real TCP connections that notice every byte: both ends")]
enum Order {
    /// Serve: answer every message, and check that it is the expected one
    Serve {
        #[arg(long)]
        listen: SocketAddr,
        /// Sent to the clients with every answer; at most 16 bytes
        #[arg(long)]
        name: String,
    },
    /// Open connections to a VIPA and exchange messages until `finish` is read from standard input
    Run {
        #[arg(long)]
        vipa: SocketAddr,
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[arg(long, default_value_t = 500)]
        interval_ms: u64,
        #[arg(long, default_value_t = 5)]
        fresh_per_second: u32,
        #[arg(long, default_value_t = 30)]
        patience_s: u64,
        /// Source address; may be given several times
        #[arg(long)]
        source: Vec<IpAddr>,
        /// Report in words, once a second; finish on SIGTERM or SIGINT, and fail when a connection was lost
        #[arg(long)]
        words: bool,
    },
    /// Write a line for the first announcement of each address by each Ethernet address (gratuitous ARP), until killed
    Announcements,
    /// Send malformed and random packets to a router's port
    Spray {
        #[arg(long, default_value = "eth0")]
        interface: String,
        /// The port's Ethernet address
        #[arg(long, value_parser = mac)]
        to: [u8; 6],
        #[arg(long)]
        vipa: SocketAddrV4,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Send SYNs instead, each of a new client
        #[arg(long)]
        flood: bool,
        /// Frames a second; without it as fast as the link takes them
        #[arg(long)]
        per_second: Option<u32>,
    },
    /// Open connections of one request, one after the other, until `finish` is read from standard input
    Request {
        #[arg(long)]
        vipa: SocketAddr,
        /// If given several times, the clients use them in turn
        #[arg(long, required = true)]
        ending: Vec<Ending>,
        #[arg(long, default_value_t = 1)]
        clients: u16,
        /// Connections of all clients together, instead of `finish`
        #[arg(long)]
        count: Option<u64>,
        /// The first client's first port
        #[arg(long, default_value_t = 0)]
        first_port: u16,
        /// Ports of each client; 0: the kernel chooses
        #[arg(long, default_value_t = 0)]
        ports: u16,
        #[arg(long, default_value_t = 0)]
        silence_ms: u64,
        #[arg(long, default_value_t = 0)]
        longest_silence_ms: u64,
        #[arg(long, default_value_t = 300)]
        answer_bytes: usize,
        #[arg(long, default_value_t = 300)]
        late_bytes: usize,
        #[arg(long, default_value_t = 0)]
        interval_ms: u64,
        #[arg(long, default_value_t = 20)]
        patience_s: u64,
    },
    /// Send segments with clients' addresses and ports, and wrong sequence numbers
    Spoof {
        #[arg(long, default_value = "eth0")]
        interface: String,
        /// The port's Ethernet address
        #[arg(long, value_parser = mac)]
        to: [u8; 6],
        #[arg(long)]
        vipa: SocketAddrV4,
        /// A client's address and port; may be given several times
        #[arg(long)]
        client: Vec<SocketAddrV4>,
        /// If given several times: one segment of each, in this order
        #[arg(long, required = true)]
        flags: Vec<Flags>,
    },
    /// Claim others' addresses for this host, by ARP replies and neighbour advertisements, until killed
    Forge {
        #[arg(long, default_value = "eth0")]
        interface: String,
        /// The Ethernet address of the router's port
        #[arg(long, value_parser = mac)]
        to: [u8; 6],
        /// The IP address of the router's port
        #[arg(long)]
        told: IpAddr,
        /// May be given several times
        #[arg(long, required = true)]
        claim: Vec<IpAddr>,
        #[arg(long, default_value_t = 1000)]
        per_second: u32,
    },
    /// Begin handshakes of links to routers, from many invented addresses, and never continue them
    Handshakes {
        /// Where a router listens; if given several times, in turn
        #[arg(long, required = true)]
        to: Vec<SocketAddr>,
        #[arg(long, default_value_t = 2000)]
        per_second: u32,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Serve files of any size over HTTP: GET /N gives N bytes
    Web {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Act as a target that reports connections that do not exist
    Replay {
        /// An agent's configuration
        #[arg(long)]
        config: PathBuf,
        #[arg(long)]
        connections: u32,
    },
    /// Act as a node that sends the routers every kind of message with every harmful number, until SIGTERM
    Hostile {
        /// The configuration of a router or of an agent
        #[arg(long)]
        config: PathBuf,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Answer every UDP datagram with itself
    Echo {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Send UDP datagrams to a VIPA and expect each back
    Ask {
        #[arg(long)]
        vipa: SocketAddr,
        #[arg(long)]
        size: usize,
        #[arg(long, default_value_t = 10)]
        count: u16,
    },
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text:?} is not an Ethernet address"))
}

fn main() -> ExitCode {
    let end = match Order::parse() {
        Order::Serve { listen, name } => serve(&ServerSettings { name, listen }),
        Order::Run { vipa, connections, interval_ms, fresh_per_second, patience_s, source, words } => {
            run(ClientSettings {
                vipa,
                sources: source,
                connections,
                interval: Duration::from_millis(interval_ms),
                fresh_per_second,
                patience: Duration::from_secs(patience_s),
                voice: if words { Voice::Words } else { Voice::Json },
            })
        }
        Order::Announcements => announcements(),
        Order::Spray { interface, to, vipa, count, seed, flood: only_syns, per_second } => {
            let (vipa, port) = (*vipa.ip(), vipa.port());
            let settings = SpraySettings { interface, to, vipa, port, count, seed, per_second };
            if only_syns { flood(&settings) } else { spray(&settings) }
        }
        Order::Request {
            vipa,
            ending: endings,
            clients,
            count,
            first_port,
            ports,
            silence_ms,
            longest_silence_ms,
            answer_bytes,
            late_bytes,
            interval_ms,
            patience_s,
        } => request(RequestSettings {
            vipa,
            endings,
            clients,
            count,
            first_port,
            ports,
            silence_ms: (silence_ms, longest_silence_ms.max(silence_ms)),
            answer_bytes,
            late_bytes,
            interval: Duration::from_millis(interval_ms),
            patience: Duration::from_secs(patience_s),
        }),
        Order::Spoof { interface, to, vipa, client: clients, flags } => {
            spoof(&SpoofSettings { interface, to, vipa, clients, flags })
        }
        Order::Forge { interface, to, told, claim: claims, per_second } => {
            forge(&ForgedSettings { interface, to, claims, told, per_second })
        }
        Order::Handshakes { to, per_second, seconds } => {
            handshakes(&HandshakeSettings { to, per_second, duration: Duration::from_secs(seconds) })
        }
        Order::Replay { config, connections } => replay(&config, connections),
        Order::Hostile { config, seed } => attack(&config, seed),
        Order::Web { listen } => web(listen),
        Order::Echo { listen } => echo(listen),
        Order::Ask { vipa, size, count } => ask(vipa, size, count),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipa-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
