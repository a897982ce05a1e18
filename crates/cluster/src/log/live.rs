//! The connections that a target holds, each with its state: sorted, and in little memory.
//!
//! ```text
//!   Live ── IPv4, 10 bytes each ── pages of up to 256, sorted ── protocol 1 │ client 4  │ its port 2 │ port 2 │ state 1
//!        └─ IPv6, 22 bytes each ── pages                      ── protocol 1 │ client 16 │ its port 2 │ port 2 │ state 1
//! ```
//! A page grows in small steps, so that next to no room is reserved in advance: a million IPv4 connections take 11 to
//! 12 MB. The order is that of the bytes, which is the connections' own order within a protocol and family: the same
//! contents are always listed in the same order.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use vipa_model::{Connection, ConnectionState, Protocol};

/// Entries of a page; a full page is split in two.
const PAGE: usize = 256;
/// Entries by which a page's room grows.
const STEP: usize = 16;

#[derive(Clone, Debug, Default)]
pub struct Live {
    v4: Pages<10>,
    v6: Pages<22>,
}

impl Live {
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn get(&self, connection: &Connection) -> Option<ConnectionState> {
        match entry_of(connection, ConnectionState::HalfOpen) {
            Entry::V4(entry) => self.v4.get(&entry),
            Entry::V6(entry) => self.v6.get(&entry),
        }
    }

    /// Inserts a connection; returns the state that it had before, if it was there.
    pub fn insert(&mut self, connection: Connection, state: ConnectionState) -> Option<ConnectionState> {
        match entry_of(&connection, state) {
            Entry::V4(entry) => self.v4.insert(entry),
            Entry::V6(entry) => self.v6.insert(entry),
        }
    }

    pub fn remove(&mut self, connection: &Connection) -> Option<ConnectionState> {
        match entry_of(connection, ConnectionState::HalfOpen) {
            Entry::V4(entry) => self.v4.remove(&entry),
            Entry::V6(entry) => self.v6.remove(&entry),
        }
    }

    /// All connections, IPv4 first, each family in order.
    pub fn iter(&self) -> impl Iterator<Item = (Connection, ConnectionState)> + Clone {
        self.v4.iter().map(connection_of).chain(self.v6.iter().map(connection_of))
    }

    /// Connections that are not in `other`, or are there in another state: with their state here.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (Connection, ConnectionState)> + 'a {
        let v4 = Difference { ours: self.v4.iter().peekable(), theirs: other.v4.iter().peekable() };
        let v6 = Difference { ours: self.v6.iter().peekable(), theirs: other.v6.iter().peekable() };
        v4.map(connection_of).chain(v6.map(connection_of))
    }
}

impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.v4.iter().eq(other.v4.iter()) && self.v6.iter().eq(other.v6.iter())
    }
}

impl Eq for Live {}

impl FromIterator<(Connection, ConnectionState)> for Live {
    fn from_iter<T: IntoIterator<Item = (Connection, ConnectionState)>>(connections: T) -> Self {
        let mut live = Self::default();
        live.extend(connections);
        live
    }
}

impl Extend<(Connection, ConnectionState)> for Live {
    fn extend<T: IntoIterator<Item = (Connection, ConnectionState)>>(&mut self, connections: T) {
        for (connection, state) in connections {
            self.insert(connection, state);
        }
    }
}

/// Walks two sorted sequences together.
struct Difference<'a, A: Iterator<Item = &'a [u8; N]>, const N: usize> {
    ours: std::iter::Peekable<A>,
    theirs: std::iter::Peekable<A>,
}

impl<'a, A: Iterator<Item = &'a [u8; N]>, const N: usize> Iterator for Difference<'a, A, N> {
    type Item = &'a [u8; N];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let ours = self.ours.next()?;
            while self.theirs.next_if(|theirs| key(theirs) < key(ours)).is_some() {}
            if self.theirs.peek().is_none_or(|theirs| *theirs != ours) {
                return Some(ours);
            }
        }
    }
}

enum Entry {
    V4([u8; 10]),
    V6([u8; 22]),
}

fn entry_of(connection: &Connection, state: ConnectionState) -> Entry {
    let Connection { protocol, client, port } = *connection;
    let protocol = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    };
    let state = match state {
        ConnectionState::HalfOpen => 0,
        ConnectionState::Established => 1,
        ConnectionState::Closing => 2,
    };
    let ([c, d], [e, f]) = (client.port().to_be_bytes(), port.to_be_bytes());
    match client {
        SocketAddr::V4(client) => {
            let [a0, a1, a2, a3] = client.ip().octets();
            Entry::V4([protocol, a0, a1, a2, a3, c, d, e, f, state])
        }
        SocketAddr::V6(client) => {
            let mut entry = [protocol; 22];
            entry[1..17].copy_from_slice(&client.ip().octets());
            entry[17..].copy_from_slice(&[c, d, e, f, state]);
            Entry::V6(entry)
        }
    }
}

fn connection_of<const N: usize>(entry: &[u8; N]) -> (Connection, ConnectionState) {
    let ([protocol, client @ ..], [c, d, e, f, state]) = entry.split_last_chunk().expect("entries are longer") else {
        unreachable!("entries are longer")
    };
    let protocol = if *protocol == 0 { Protocol::Tcp } else { Protocol::Udp };
    let client_port = u16::from_be_bytes([*c, *d]);
    let client = match <[u8; 4]>::try_from(client) {
        Ok(client) => SocketAddr::from((Ipv4Addr::from(client), client_port)),
        Err(_) => {
            let client: [u8; 16] = client.try_into().expect("an entry is of one family or the other");
            SocketAddr::from((Ipv6Addr::from(client), client_port))
        }
    };
    (Connection { protocol, client, port: u16::from_be_bytes([*e, *f]) }, state_of(*state))
}

fn state_of(byte: u8) -> ConnectionState {
    match byte {
        0 => ConnectionState::HalfOpen,
        1 => ConnectionState::Established,
        _ => ConnectionState::Closing,
    }
}

/// An entry without its state.
fn key<const N: usize>(entry: &[u8; N]) -> &[u8] {
    &entry[..N - 1]
}

fn state<const N: usize>(entry: &[u8; N]) -> ConnectionState {
    state_of(entry[N - 1])
}

/// Sorted entries, each key once.
#[derive(Clone, Debug, Default)]
struct Pages<const N: usize> {
    /// No page is empty.
    pages: Vec<Vec<[u8; N]>>,
    /// For each page a lower bound of its entries, above all entries of the pages before.
    bounds: Vec<[u8; N]>,
    len: usize,
}

impl<const N: usize> Pages<N> {
    /// The page that has this key, or would have it.
    fn page(&self, entry: &[u8; N]) -> usize {
        self.bounds.partition_point(|bound| key(bound) <= key(entry)).saturating_sub(1)
    }

    fn find(&self, entry: &[u8; N]) -> (usize, Result<usize, usize>) {
        let page = self.page(entry);
        let found = self.pages.get(page).map_or(Err(0), |page| page.binary_search_by(|held| key(held).cmp(key(entry))));
        (page, found)
    }

    fn get(&self, entry: &[u8; N]) -> Option<ConnectionState> {
        let (page, found) = self.find(entry);
        let place = found.ok()?;
        Some(state(&self.pages[page][place]))
    }

    fn insert(&mut self, entry: [u8; N]) -> Option<ConnectionState> {
        let (at, found) = self.find(&entry);
        let place = match found {
            Ok(place) => return Some(state(&std::mem::replace(&mut self.pages[at][place], entry))),
            Err(place) => place,
        };
        self.len += 1;
        let Some(page) = self.pages.get_mut(at) else {
            self.pages.push(vec![entry]);
            self.bounds.push(entry);
            return None;
        };
        if place == 0 && key(&entry) < key(&self.bounds[at]) {
            self.bounds[at] = entry;
        }
        if page.len() == page.capacity() {
            page.reserve_exact(STEP);
        }
        page.insert(place, entry);
        if page.len() == PAGE {
            // Entries that arrive in order fill pages; any others halve them.
            let upper = page.split_off(if place + 1 == PAGE { PAGE - 1 } else { PAGE / 2 });
            page.shrink_to(page.len() + STEP);
            self.bounds.insert(at + 1, upper[0]);
            self.pages.insert(at + 1, upper);
        }
        None
    }

    fn remove(&mut self, entry: &[u8; N]) -> Option<ConnectionState> {
        let (at, found) = self.find(entry);
        let page = self.pages.get_mut(at)?;
        let removed = page.remove(found.ok()?);
        self.len -= 1;
        if page.capacity() > page.len() + 2 * STEP {
            page.shrink_to(page.len() + STEP);
        }
        if page.is_empty() {
            self.take_out(at);
        } else if page.len() < PAGE / 4 {
            self.join(at);
        }
        Some(state(&removed))
    }

    /// Joins a small page and the next one, if that leaves room.
    fn join(&mut self, at: usize) {
        let len = |page: usize| self.pages.get(page).map_or(PAGE, Vec::len);
        if len(at) + len(at + 1) <= PAGE / 2 {
            let upper = self.take_out(at + 1);
            self.pages[at].reserve_exact(upper.len());
            self.pages[at].extend(upper);
        }
    }

    fn take_out(&mut self, at: usize) -> Vec<[u8; N]> {
        self.bounds.remove(at);
        self.pages.remove(at)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8; N]> + Clone {
        self.pages.iter().flatten()
    }
}

#[cfg(test)]
mod tests;
