//! Socket events as they happen: from a BPF program on the root of the cgroup tree (`bpf/observe.bpf.c`), through a
//! ring.
//!
//! ```text
//! event   local 16 │ remote 16 │ local port 2 │ remote port 2 │ kind 1 │ state before 1 │ state now 1 │ – 1
//! ```
//! Ports and states are in the host's byte order; addresses are as in a packet, IPv4 ones as IPv4-mapped IPv6 ones. The
//! program is removed when this process ends: it is attached by a link that only this process owns.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfError,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::{CgroupAttachMode, ProgramError, SockOps},
};

use vipa_model::config::{self, Observe};

use super::diag::TcpState;
use crate::{bpf::address_of, setup::Item};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observe.o"));
const PROGRAM: &str = "vipa_observe";
const EVENT: usize = 40;

/// A namespace's cookie and a local address, as `struct place` of the program.
type Place = [u8; 24];

#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("no cgroup2 file system is mounted; mount one, for example at /sys/fs/cgroup/unified")]
    NoCgroup,
    #[error("cannot open the root of the cgroup tree {path}: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error(
        "the kernel takes no BPF program that watches sockets: {0}; it must be Linux 5.15 or later, and the agent needs CAP_BPF and CAP_NET_ADMIN"
    )]
    Load(#[from] Box<EbpfError>),
    #[error("the BPF program that watches sockets cannot hang on {path}: {source}; the agent needs CAP_NET_ADMIN")]
    Attach { path: PathBuf, source: Box<ProgramError> },
    #[error("cannot use a map of the BPF program that watches sockets: {0}")]
    Map(#[from] MapError),
}

/// The changes that this would make on this host.
pub(crate) fn plan(agent: &config::Agent) -> Vec<Item> {
    let how = match (agent.observe, cgroup_root()) {
        (Observe::Diag, _) => "no program; connections are followed by sock_diag".to_owned(),
        (Observe::Auto | Observe::Bpf, Some(root)) => {
            format!("program {} on {}, gone with the agent", PROGRAM, root.display())
        }
        (Observe::Auto, None) => format!("no program, because {}", RingError::NoCgroup),
        (Observe::Bpf, None) => format!("impossible: {}", RingError::NoCgroup),
    };
    vec![Item::new("bpf", how)]
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A socket began or ceased to listen.
    Listening,
    Connection {
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        became: Became,
    },
}

/// The new state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    State(TcpState),
    /// The application's socket is gone, but the client may not have closed yet: the kernel must be asked.
    Unclear,
    Gone,
}

pub(crate) struct Ring {
    events: RingBuf<MapData>,
    watched: HashMap<MapData, Place, u8>,
    lost: Array<MapData, u64>,
    lost_before: u64,
    namespaces: Vec<u64>,
    /// Keeps the program and its link.
    _bpf: Ebpf,
}

impl Ring {
    /// Watches the sockets of the network namespaces with these cookies.
    pub(crate) fn open(namespaces: Vec<u64>) -> Result<Self, RingError> {
        let path = cgroup_root().ok_or(RingError::NoCgroup)?;
        let cgroup = File::open(&path).map_err(|source| RingError::Cgroup { path: path.clone(), source })?;
        let mut bpf = Ebpf::load(OBJECT).map_err(Box::new)?;
        let mut map = |name: &str| bpf.take_map(name).expect("the object has it");
        let events = RingBuf::try_from(map("events"))?;
        let (watched, lost) = (HashMap::try_from(map("watched"))?, Array::try_from(map("lost"))?);
        let mut known: HashMap<_, u64, u8> = HashMap::try_from(map("namespaces"))?;
        for namespace in &namespaces {
            known.insert(namespace, 1, 0)?;
        }
        let program = bpf.program_mut(PROGRAM).expect("the object has it");
        let program: &mut SockOps = program.try_into().map_err(load_error)?;
        program.load().map_err(load_error)?;
        // Attached by a link, which leaves room for other programs whatever the mode.
        let attached = program.attach(cgroup, CgroupAttachMode::Single);
        attached.map_err(|source| RingError::Attach { path, source: Box::new(source) })?;
        Ok(Self { events, watched, lost, lost_before: 0, namespaces, _bpf: bpf })
    }

    /// Makes the program report sockets of exactly these local addresses.
    pub(crate) fn watch(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), RingError> {
        let place = |namespace: &u64, address: IpAddr| {
            let mut place = [0; 24];
            place[..8].copy_from_slice(&namespace.to_ne_bytes());
            place[8..].copy_from_slice(&address_of(address));
            place
        };
        let places = self.namespaces.iter().flat_map(|of| addresses.iter().map(move |address| place(of, *address)));
        let wanted: BTreeSet<Place> = places.collect();
        let there: BTreeSet<Place> = self.watched.keys().collect::<Result<_, _>>()?;
        for gone in there.difference(&wanted) {
            self.watched.remove(gone)?;
        }
        for new in wanted.difference(&there) {
            self.watched.insert(new, 1, 0)?;
        }
        Ok(())
    }

    /// Readable when an event has happened.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, if there is one.
    pub(crate) fn next(&mut self) -> Option<Happening> {
        let mut happened = None;
        while happened.is_none() {
            happened = happening_of(&self.events.next()?);
        }
        happened
    }

    /// Whether an event has been lost since the last call: a whole look is needed.
    pub(crate) fn has_lost(&mut self) -> Result<bool, RingError> {
        let lost = self.lost.get(&0, 0)?;
        Ok(std::mem::replace(&mut self.lost_before, lost) != lost)
    }
}

fn load_error(error: ProgramError) -> RingError {
    RingError::Load(Box::new(EbpfError::from(error)))
}

/// Where the unified hierarchy is mounted, whether alone or beside others.
fn cgroup_root() -> Option<PathBuf> {
    root_among(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn root_among(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| path.into())
    })
}

fn happening_of(event: &[u8]) -> Option<Happening> {
    let event: &[u8; EVENT] = event.try_into().ok()?;
    let address = |at: usize| {
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(&event[at..at + 16]).expect("16 bytes"));
        address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
    };
    let port = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let [kind, before, now] = [event[36], event[37], event[38]];
    let became = match (kind, TcpState::of(before), TcpState::of(now)) {
        (2, _, _) => return Some(Happening::Listening),
        // The kernel replaces the socket by a smaller one that may still receive data of the client.
        (_, Some(TcpState::FinWait2), Some(TcpState::Close)) => Became::Unclear,
        (_, _, Some(TcpState::Close) | None) => Became::Gone,
        (_, _, Some(state)) => Became::State(state),
    };
    Some(Happening::Connection { local: (address(0), port(32)), remote: (address(16), port(34)), became })
}

#[cfg(test)]
mod tests;
