//! What this router left alone when it last stopped, so that its next life can tell for how long nobody owned it.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

const FILE: &str = "restart_gap.json";

/// How each VIPA was left without an owner.
pub(crate) type Left = BTreeMap<IpAddr, Leaving>;
/// Frames that have come to each port's interface so far, by the port's name; only where the kernel counts them.
pub(crate) type Arrived = BTreeMap<String, u64>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    /// Milliseconds since 1970.
    at_unix_ms: u64,
    arrived: Arrived,
}

/// A time in which nobody owned a VIPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) ms: u64,
    /// Frames of any kind that came to the ports meanwhile; `None`: not every port's can be told.
    pub(crate) frames: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct RestartGap {
    path: PathBuf,
    before: Left,
    now: Left,
}

impl RestartGap {
    /// Reads what the last life left in `folder`, and takes it away: it is told once.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        // Not there, as after a kill; then there is nothing to tell.
        let _ = fs::remove_file(&path);
        Self { path, before, now: Left::new() }
    }

    /// Nobody owns `vipa` from now on.
    pub(crate) fn leave(&mut self, vipa: IpAddr, arrived: Arrived) {
        self.now.insert(vipa, Leaving { at_unix_ms: unix_ms(), arrived });
    }

    /// This router owns it: since when nobody has, if its last life left it alone.
    pub(crate) fn owned_again(&mut self, vipa: IpAddr, arrived: &Arrived) -> Option<Gap> {
        let Leaving { at_unix_ms, arrived: before } = self.before.remove(&vipa)?;
        // An interface that was made anew counts from zero.
        let frames = |(port, now): (&String, &u64)| now.checked_sub(*before.get(port)?);
        let frames = arrived.iter().map(frames).sum::<Option<u64>>();
        Some(Gap { ms: unix_ms().saturating_sub(at_unix_ms), frames: frames.filter(|_| !arrived.is_empty()) })
    }

    /// Writes down what this life leaves.
    pub(crate) fn end(self) {
        if self.now.is_empty() {
            return;
        }
        let written = serde_json::to_vec(&self.now).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|text| fs::write(&self.path, text)) {
            tracing::warn!(%error, "the next start will not know for how long nobody owned its VIPAs");
        }
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("vipa-last-life-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn arrived(ports: &[(&str, u64)]) -> Arrived {
        ports.iter().map(|(port, frames)| ((*port).to_owned(), *frames)).collect()
    }

    #[test]
    fn what_one_life_left_the_next_one_tells_once() {
        let folder = folder("once");
        let mut first = RestartGap::open(&folder);
        assert_eq!(first.owned_again(VIPA, &Arrived::new()), None);
        first.leave(VIPA, Arrived::new());
        first.leave(Ipv4Addr::new(192, 0, 2, 2).into(), Arrived::new());
        first.end();
        let mut second = RestartGap::open(&folder);
        assert!(second.owned_again(VIPA, &Arrived::new()).is_some_and(|gap| gap.ms < 60_000));
        assert_eq!(second.owned_again(VIPA, &Arrived::new()), None);
        second.end();
        assert_eq!(RestartGap::open(&folder).before, Left::new());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn frames_that_came_meanwhile_are_told_where_every_port_knows_them() {
        let folder = folder("frames");
        for (before, after, frames) in [
            (&[("p0", 100), ("p1", 7)][..], &[("p0", 130), ("p1", 7)][..], Some(30)),
            // p1 was made anew; p1 was not there; nothing can be counted.
            (&[("p0", 100), ("p1", 7)], &[("p0", 130), ("p1", 5)], None),
            (&[("p0", 100)], &[("p0", 130), ("p1", 5)], None),
            (&[], &[], None),
        ] {
            let mut first = RestartGap::open(&folder);
            first.leave(VIPA, arrived(before));
            first.end();
            let gap = RestartGap::open(&folder).owned_again(VIPA, &arrived(after)).unwrap();
            assert_eq!(gap.frames, frames, "{before:?} {after:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
