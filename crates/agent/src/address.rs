//! What direct return needs of a host: the VIPAs on an interface that asks nobody for them, and a kernel that does
//! not answer ARP for them.
//!
//! ```text
//!   wanted ──► serve:  one dump ──► what differs ──► one file written ──► requests, many under way at once
//! ```
//! Everything changed is written down first, in `host.json` of the state folder, with what was there before. It outlives the
//! agent, however that ends: the next one takes it over instead of doubling it, and `vipa-agent cleanup` undoes exactly that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use futures::StreamExt;
use nix::libc;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressFlags, AddressMessage},
};
use serde::{Deserialize, Serialize};
use vipa_model::config;

use crate::{
    inheritance::Inherited,
    misplaced::{self, Misplaced, MisplacedList},
    netlink::{addresses_of, all_addresses, index_of, is},
    setup::Item,
    state_file::{StateFile, StateFileError},
};

const FILE: &str = "host.json";
/// Netlink requests under way at once: their answers fit into the socket's buffer.
const UNDER_WAY: usize = 32;
/// Addresses named one by one in the log; of more only the number is told.
const NAMED: usize = 8;

/// Answer ARP only for addresses of the interface that was asked (1); ask with an address of the interface that asks
/// (2). See ip-sysctl of the kernel's documentation.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"), ("/proc/sys/net/ipv4/conf/all/arp_announce", "2")];

/// What would be changed on this host.
pub(crate) fn plan(agent: &config::Agent) -> Vec<Item> {
    let sysctl = |(path, value): &(&str, &str)| {
        let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
        let how = match fs::read_to_string(path) {
            Ok(before) if before.trim() == *value => format!("{name} is {value} already, and stays"),
            Ok(before) => format!("{name} from {} to {value}", before.trim()),
            Err(error) => format!("{name} to {value}, which cannot be read now: {error}"),
        };
        Item::new("sysctl", how)
    };
    let config::Agent { address, interface, .. } = agent;
    let vipas = format!("each VIPA that a list of candidates sends to {address}: as /32 or /128 on {interface}");
    SYSCTLS.iter().map(sysctl).chain([Item::new("address", vipas)]).collect()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error("there is no interface {0:?} on this host; set agent.interface, usually \"lo\"")]
    NoInterface(String),
    #[error("cannot ask the kernel for interface {interface:?} and its addresses: {source}")]
    Netlink { interface: String, source: Box<rtnetlink::Error> },
    #[error("cannot set {path}: {source}; the agent needs CAP_NET_ADMIN, run it as root")]
    Sysctl { path: String, source: io::Error },
    #[error(
        "cannot {what} {address}{} on {interface}: {source}; the agent needs CAP_NET_ADMIN, run it as root",
        and_others(*others)
    )]
    Address { what: &'static str, address: IpAddr, others: usize, interface: String, source: Box<rtnetlink::Error> },
}

/// What was changed, and what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    interface: String,
    added: BTreeSet<IpAddr>,
    /// Addresses on interfaces that were configured before this one, until they are on this one.
    #[serde(default)]
    former: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Path and previous value.
    sysctls: BTreeMap<String, String>,
}

/// What the work on addresses has cost since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressWork {
    /// Dumps of an interface's addresses.
    pub(crate) dumps: u64,
    /// Addresses added and removed.
    pub(crate) requests: u64,
    pub(crate) files_written: u64,
}

/// The addresses of this host that are the agent's business.
#[derive(Debug)]
pub(crate) struct Addresses {
    handle: Handle,
    index: u32,
    kept: StateFile<Changes>,
    wanted: BTreeSet<IpAddr>,
    /// What an earlier agent left and nobody has released.
    inherited: BTreeSet<IpAddr>,
    /// Wanted addresses that somebody else has put there.
    foreign: BTreeSet<IpAddr>,
    misplaced: MisplacedList,
    work: AddressWork,
}

impl Addresses {
    /// Takes over what an earlier agent left.
    pub(crate) async fn open(interface: &str, state_dir: &Path, handle: Handle) -> Result<Self, AddressError> {
        let mut kept: StateFile<Changes> = StateFile::open(state_dir, FILE)?;
        let ask_failed = |source| netlink_error(interface, source);
        let index = index_of(&handle, interface).await.map_err(ask_failed)?;
        let index = index.ok_or_else(|| AddressError::NoInterface(interface.into()))?;
        let here = addresses_of(&handle, index).await.map_err(ask_failed)?;
        let Changes { interface: old, added, former, .. } = &mut kept.value;
        if old != interface {
            // Configured anew since. What is left on the old interface stays until it is on the new one.
            let old = std::mem::replace(old, interface.to_owned());
            former.entry(old).or_default().append(added);
            former.retain(|_, left| !left.is_empty());
        }
        // A reboot takes the addresses and leaves the file.
        added.retain(|address| here.contains_key(address));
        let mut inherited = added.clone();
        for (interface, left) in former {
            let there = match index_of(&handle, interface).await.map_err(ask_failed)? {
                Some(index) => addresses_of(&handle, index).await.map_err(ask_failed)?,
                None => BTreeMap::new(),
            };
            left.retain(|address| there.contains_key(address));
            inherited.extend(left.iter());
        }
        let (wanted, foreign) = (BTreeSet::new(), BTreeSet::new());
        let (misplaced, work) = (MisplacedList::default(), AddressWork::default());
        Ok(Self { handle, index, kept, wanted, inherited, foreign, misplaced, work })
    }

    /// Whether a wanted address has been taken away by others. Looks as well for those that others have put where they do harm.
    pub(crate) async fn are_gone(&mut self) -> Result<bool, AddressError> {
        if self.wanted.is_empty() {
            self.misplaced.set(Vec::new());
            return Ok(false);
        }
        self.work.dumps += 1;
        let failed = |source| netlink_error(&self.kept.value.interface, source);
        let all = all_addresses(&self.handle).await.map_err(failed)?;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            all.into_iter().filter(|(_, address)| self.wanted.contains(address)).partition(|(on, _)| *on == self.index);
        self.misplaced.set(misplaced::find(&self.handle, elsewhere).await.map_err(failed)?);
        let here: BTreeSet<IpAddr> = here.into_iter().map(|(_, address)| address).collect();
        let gone: Vec<IpAddr> = self.wanted.difference(&here).copied().collect();
        if !gone.is_empty() {
            tracing::warn!(interface = %self.kept.value.interface, "somebody has taken away {}", names(&gone));
        }
        Ok(!gone.is_empty())
    }

    /// Makes `vipas`, what is inherited, and no others of ours be there. One address that is refused keeps no other away.
    pub(crate) async fn serve(&mut self, vipas: &BTreeSet<IpAddr>, inherited: Inherited) -> Result<(), AddressError> {
        if inherited == Inherited::Release {
            self.inherited.clear();
        }
        self.wanted = vipas | &self.inherited;
        if !self.wanted.is_empty() {
            self.set_sysctls()?;
        }
        let here = self.list().await?;
        let added = self.add(&here).await;
        let removed = self.remove(&here).await;
        added.and(removed)?;
        self.leave_former().await
    }

    /// VIPAs that others have put where this host answers ARP for them.
    pub(crate) fn misplaced(&self) -> &[Misplaced] {
        self.misplaced.all()
    }

    /// What is changed on this host now, a line each.
    pub(crate) fn changed(&self) -> Vec<String> {
        let Changes { interface, added, sysctls, former: _ } = &self.kept.value;
        let line = |address: &IpAddr| {
            let why = if self.inherited.contains(address) { ", as an earlier agent left it" } else { "" };
            format!("{address} is on {interface}{why}")
        };
        let setting = |(path, before): (&String, &String)| {
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            let now = fs::read_to_string(path).unwrap_or_default();
            format!("{name} is {}, and was {before}", now.trim())
        };
        added.iter().map(line).chain(sysctls.iter().map(setting)).collect()
    }

    pub(crate) fn work(&self) -> AddressWork {
        AddressWork { files_written: self.kept.written(), ..self.work }
    }

    /// Undoes everything.
    pub(crate) async fn restore(self) -> Result<Vec<String>, AddressError> {
        undo(self.kept, &self.handle).await
    }

    async fn list(&mut self) -> Result<BTreeMap<IpAddr, AddressMessage>, AddressError> {
        self.work.dumps += 1;
        let list = addresses_of(&self.handle, self.index).await;
        list.map_err(|source| netlink_error(&self.kept.value.interface, source))
    }

    fn set_sysctls(&mut self) -> Result<(), AddressError> {
        let mut differing = Vec::new();
        for (path, value) in SYSCTLS {
            let fail = |source| AddressError::Sysctl { path: path.into(), source };
            let before = fs::read_to_string(path).map_err(fail)?.trim().to_string();
            if before != value {
                self.kept.value.sysctls.entry(path.into()).or_insert(before);
                differing.push((path, value));
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        self.kept.save()?;
        for (path, value) in differing {
            fs::write(path, value).map_err(|source| AddressError::Sysctl { path: path.into(), source })?;
        }
        Ok(())
    }

    /// Adds the wanted addresses that are not here.
    async fn add(&mut self, here: &BTreeMap<IpAddr, AddressMessage>) -> Result<(), AddressError> {
        let (present, missing): (Vec<IpAddr>, Vec<IpAddr>) =
            self.wanted.iter().partition(|address| here.contains_key(address));
        let before = self.kept.value.added.clone();
        self.note_foreign(present.into_iter().filter(|address| !before.contains(address)).collect());
        if missing.is_empty() {
            return Ok(());
        }
        self.kept.value.added.extend(&missing);
        self.kept.save()?;
        let requests = missing.iter().map(|address| (*address, self.request(*address)));
        let requests = requests.map(|(address, request)| async move { (address, request.execute().await) });
        let answers: Vec<_> = futures::stream::iter(requests).buffer_unordered(UNDER_WAY).collect().await;
        self.work.requests += answers.len() as u64;
        let (mut done, mut foreign, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (address, answer) in answers {
            match answer {
                Ok(()) => done.push(address),
                // Ours, which a dump beside somebody's change has passed over.
                Err(error) if is(&error, libc::EEXIST) && before.contains(&address) => {}
                Err(error) if is(&error, libc::EEXIST) => foreign.push(address),
                Err(error) => failures.push((address, error)),
            }
        }
        let not_ours = failures.iter().map(|(address, _)| address).filter(|address| !before.contains(address));
        let not_ours: Vec<IpAddr> = not_ours.chain(&foreign).copied().collect();
        if !not_ours.is_empty() {
            self.kept.value.added.retain(|address| !not_ours.contains(address));
            self.kept.save()?;
        }
        self.note_foreign(foreign);
        if !done.is_empty() {
            tracing::info!(interface = %self.kept.value.interface, "on this host now: {}", names(&done));
        }
        self.first_of("put", failures)
    }

    /// Removes those of ours that are not wanted.
    async fn remove(&mut self, here: &BTreeMap<IpAddr, AddressMessage>) -> Result<(), AddressError> {
        let unwanted: Vec<IpAddr> = self.kept.value.added.difference(&self.wanted).copied().collect();
        if unwanted.is_empty() {
            return Ok(());
        }
        let there = unwanted.iter().filter_map(|address| Some((*address, here.get(address)?.clone())));
        let answers = remove(&self.handle, there.collect()).await;
        self.work.requests += answers.len() as u64;
        let failures: Vec<_> = answers.into_iter().filter_map(|(address, done)| Some((address, done.err()?))).collect();
        let failed = |address: &IpAddr| failures.iter().any(|(failed, _)| failed == address);
        let gone: Vec<IpAddr> = unwanted.into_iter().filter(|address| !failed(address)).collect();
        self.kept.value.added.retain(|address| !gone.contains(address));
        self.kept.save()?;
        if !gone.is_empty() {
            tracing::info!(interface = %self.kept.value.interface, "off this host now: {}", names(&gone));
        }
        self.first_of("remove", failures)
    }

    /// Removes what an earlier agent put on other interfaces, now that it is on this one as far as it is wanted.
    async fn leave_former(&mut self) -> Result<(), AddressError> {
        if self.kept.value.former.is_empty() {
            return Ok(());
        }
        remove_former(&self.handle, &self.kept.value.former).await?;
        self.kept.value.former.clear();
        Ok(self.kept.save()?)
    }

    /// Somebody else put these there; they are theirs to take away.
    fn note_foreign(&mut self, foreign: Vec<IpAddr>) {
        let news: Vec<IpAddr> = foreign.into_iter().filter(|address| self.foreign.insert(*address)).collect();
        if !news.is_empty() {
            tracing::info!(interface = %self.kept.value.interface, "on this host already: {}", names(&news));
        }
        self.foreign.retain(|address| self.wanted.contains(address));
    }

    fn request(&self, address: IpAddr) -> rtnetlink::AddressAddRequest {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(self.index, address, prefix);
        if address.is_ipv6() {
            // Every target has it, so nobody asks whether another has (RFC 4862 §5.4). The kernel's answer to who asks on a
            // link is none: it advertises on an interface the addresses of that interface only.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request
    }

    fn first_of(&self, what: &'static str, failures: Vec<(IpAddr, rtnetlink::Error)>) -> Result<(), AddressError> {
        first_of(what, &self.kept.value.interface, failures)
    }
}

/// Undoes what the agents of this state folder have left on this host; what was undone, a line each. None may be running.
pub(crate) async fn clean_up(state_dir: &Path, handle: &Handle) -> Result<Vec<String>, AddressError> {
    undo(StateFile::open(state_dir, FILE)?, handle).await
}

async fn undo(mut kept: StateFile<Changes>, handle: &Handle) -> Result<Vec<String>, AddressError> {
    let Changes { interface, added, former, sysctls } = &mut kept.value;
    let mut undone = Vec::new();
    former.entry(interface.clone()).or_default().append(added);
    former.retain(|_, left| !left.is_empty());
    for (interface, gone) in remove_former(handle, former).await? {
        undone.extend(gone.into_iter().map(|address| format!("{address} is off {interface}")));
    }
    for (path, value) in sysctls {
        fs::write(path.as_str(), value.as_str())
            .map_err(|source| AddressError::Sysctl { path: path.clone(), source })?;
        undone.push(format!("{} is {value} again", path.trim_start_matches("/proc/sys/").replace('/', ".")));
    }
    kept.remove()?;
    Ok(undone)
}

/// Removes addresses by interface; those that were there. With an interface that is gone its addresses are.
async fn remove_former(
    handle: &Handle,
    former: &BTreeMap<String, BTreeSet<IpAddr>>,
) -> Result<Vec<(String, Vec<IpAddr>)>, AddressError> {
    let mut removed = Vec::new();
    for (interface, left) in former {
        let ask_failed = |source| netlink_error(interface, source);
        let Some(index) = index_of(handle, interface).await.map_err(ask_failed)? else { continue };
        let mut here = addresses_of(handle, index).await.map_err(ask_failed)?;
        here.retain(|address, _| left.contains(address));
        let gone: Vec<IpAddr> = here.keys().copied().collect();
        let answers = remove(handle, here).await;
        let failures = answers.into_iter().filter_map(|(address, done)| Some((address, done.err()?)));
        first_of("remove", interface, failures.collect())?;
        removed.push((interface.clone(), gone));
    }
    Ok(removed)
}

/// Removes addresses, many at once; one that is gone already is removed.
async fn remove(
    handle: &Handle,
    addresses: BTreeMap<IpAddr, AddressMessage>,
) -> Vec<(IpAddr, Result<(), rtnetlink::Error>)> {
    let requests = addresses.into_iter().map(|(address, message)| async move {
        match handle.address().del(message).execute().await {
            Err(error) if is(&error, libc::EADDRNOTAVAIL) => (address, Ok(())),
            done => (address, done),
        }
    });
    futures::stream::iter(requests).buffer_unordered(UNDER_WAY).collect().await
}

fn first_of(
    what: &'static str,
    interface: &str,
    failures: Vec<(IpAddr, rtnetlink::Error)>,
) -> Result<(), AddressError> {
    let others = failures.len().saturating_sub(1);
    match failures.into_iter().next() {
        None => Ok(()),
        Some((address, source)) => {
            let (interface, source) = (interface.into(), Box::new(source));
            Err(AddressError::Address { what, address, others, interface, source })
        }
    }
}

fn netlink_error(interface: &str, source: rtnetlink::Error) -> AddressError {
    AddressError::Netlink { interface: interface.into(), source: Box::new(source) }
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} others") }
}

/// Few addresses by name, many by their number.
fn names(addresses: &[IpAddr]) -> String {
    let named: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
