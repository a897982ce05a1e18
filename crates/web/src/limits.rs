//! What one client, and all together, may cost.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// The limits of the API; the defaults are those of `vipad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections served at once. Of more, the client that has been waited for longest gives way.
    pub connections: usize,
    /// Connections of one address; one more is closed.
    pub per_address: usize,
    /// Until a TLS handshake is done, or a request's head is there. A connection without a request is closed after it.
    pub head: Duration,
    /// Bytes and lines of a request's head.
    pub head_bytes: usize,
    pub head_lines: usize,
    /// Until a request's body is there, and its bytes.
    pub body: Duration,
    pub body_bytes: usize,
    /// A client that takes nothing of its answer for so long is let go.
    pub stalled: Duration,
    /// Until control has answered a question, and until it has carried an order out.
    pub answer: Duration,
    pub order: Duration,
    /// Requests of one client a second, and how many may come at once.
    pub rate: u32,
    pub burst: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            per_address: 16,
            head: Duration::from_secs(5),
            head_bytes: 16 << 10,
            head_lines: 64,
            body: Duration::from_secs(5),
            body_bytes: 64 << 10,
            stalled: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            order: Duration::from_secs(300),
            rate: 50,
            burst: 100,
        }
    }
}

/// Clients whose requests are counted at one time; of more, all share one account.
const MOST_CLIENTS: usize = 1024;

/// How much each client has left: a token bucket each.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    rate: f64,
    burst: f64,
    buckets: Mutex<BTreeMap<Option<K>, (f64, Instant)>>,
}

impl<K: Ord + Clone> Rates<K> {
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self { rate: per_second, burst: f64::from(burst), buckets: Mutex::default() }
    }

    /// Takes one from the client's account, if there is one.
    pub(crate) fn take(&self, client: &K, now: Instant) -> bool {
        let Self { rate, burst, buckets } = self;
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = |(left, since): (f64, Instant)| {
            (left + now.saturating_duration_since(since).as_secs_f64() * rate).min(*burst)
        };
        let mut key = Some(client.clone());
        if !buckets.contains_key(&key) && buckets.len() >= MOST_CLIENTS {
            buckets.retain(|_, bucket| refilled(*bucket) < *burst);
            if buckets.len() >= MOST_CLIENTS {
                key = None;
            }
        }
        let bucket = buckets.entry(key).or_insert((*burst, now));
        let left = refilled(*bucket);
        let has = left >= 1.0;
        *bucket = (if has { left - 1.0 } else { left }, now);
        has
    }
}

/// Connections by address.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    most: usize,
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// A connection's place among those of its address; dropped, it is free.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    address: IpAddr,
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// `None`: the address has all its places.
    pub(crate) fn take(&self, address: IpAddr) -> Option<AddressSlot> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(AddressSlot { address, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A connection that ends when its client takes nothing for too long.
pub(crate) struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = None;
            return progress;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch(context, progress)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_flush(context);
        this.watch(context, progress)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_shutdown(context);
        this.watch(context, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_burst_and_then_its_rate_whatever_others_do() {
        let (rates, start) = (Rates::new(2.0, 3), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!((0..3).all(|_| rates.take(&"a", at(0))));
        assert!(!rates.take(&"a", at(0)));
        assert!(rates.take(&"b", at(0)));
        assert!(!rates.take(&"a", at(400)));
        assert!(rates.take(&"a", at(1_000)));
        assert!((0..3).all(|_| rates.take(&"a", at(60_000))), "no more than the burst is saved");
        assert!(!rates.take(&"a", at(60_000)));
    }

    #[test]
    fn more_clients_than_are_remembered_share_one_account() {
        let (rates, now) = (Rates::new(1.0, 2), Instant::now());
        assert!((0..MOST_CLIENTS).all(|client| rates.take(&client, now)));
        assert!(rates.take(&5_000, now) && rates.take(&6_000, now));
        assert!(!rates.take(&7_000, now), "the others' account is empty");
        assert_eq!(rates.buckets.lock().unwrap().len(), MOST_CLIENTS + 1);
        assert!(rates.take(&7_000, now + Duration::from_secs(9)), "full accounts are forgotten");
        assert!(rates.buckets.lock().unwrap().len() < 3);
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Addresses::new(2);
        let address = "192.0.2.1".parse().unwrap();
        let first = addresses.take(address);
        let second = addresses.take(address);
        assert!(first.is_some() && second.is_some() && addresses.take(address).is_none());
        assert!(addresses.take("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(addresses.take(address).is_some());
        drop(second);
        assert!(addresses.counts.lock().unwrap().is_empty());
    }
}
