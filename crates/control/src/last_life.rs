//! What this router left alone when it last stopped, so that its next life can tell for how long nobody owned it.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

const FILE: &str = "last_life.json";

/// When each VIPA was left without an owner, milliseconds since 1970.
pub(crate) type Left = BTreeMap<IpAddr, u64>;

#[derive(Debug)]
pub(crate) struct LastLife {
    path: PathBuf,
    before: Left,
    now: Left,
}

impl LastLife {
    /// Reads what the last life left in `folder`, and takes it away: it is told once.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        // Not there, as after a kill; then there is nothing to tell.
        let _ = fs::remove_file(&path);
        Self { path, before, now: Left::new() }
    }

    /// Nobody owns `vipa` from now on.
    pub(crate) fn leave(&mut self, vipa: IpAddr) {
        self.now.insert(vipa, unix_ms());
    }

    /// This router owns it: for how long nobody has, milliseconds, if its last life left it alone.
    pub(crate) fn owned_again(&mut self, vipa: IpAddr) -> Option<u64> {
        self.before.remove(&vipa).map(|left| unix_ms().saturating_sub(left))
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

    #[test]
    fn what_one_life_left_the_next_one_tells_once() {
        let folder = std::env::temp_dir().join(format!("vipa-last-life-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let vipa = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let mut first = LastLife::open(&folder);
        assert_eq!(first.owned_again(vipa(1)), None);
        first.leave(vipa(1));
        first.leave(vipa(2));
        first.end();
        let mut second = LastLife::open(&folder);
        assert!(second.owned_again(vipa(1)).is_some_and(|gap| gap < 60_000));
        assert_eq!(second.owned_again(vipa(1)), None);
        second.end();
        assert_eq!(LastLife::open(&folder).before, Left::new());
        fs::remove_dir_all(folder).unwrap();
    }
}
