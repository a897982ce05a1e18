//! The lists of other routers, kept across restarts: a router that restarts while all others are dead knows by them whom the
//! VIPAs' connections may be at, and how they are reached.
//!
//! The file is replaced whole, beside the loop, and nothing waits for it: what it lacks after a power failure the targets tell.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use vipa_cluster::StoredLists;
use vipa_model::Moment;
use vipa_transport::state::{Kind, StateFile, StateFileError};

/// Between two writes: lists of many VIPAs change together.
const PACE: Duration = Duration::from_secs(1);

/// By VIPA.
type Lists = BTreeMap<IpAddr, StoredLists>;
/// As the file has them.
type Entry = (IpAddr, StoredLists);

/// What is to be on the disk, and who puts it there.
#[derive(Debug)]
pub(crate) struct ListKeeper {
    lists: Lists,
    stale: bool,
    written: Moment,
    changes: watch::Sender<Vec<Entry>>,
    writer: JoinHandle<()>,
}

impl ListKeeper {
    /// With what earlier lives left in `folder`; call it within a runtime. A damaged file costs its lists and nothing else.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Lists), StateFileError> {
        let (file, lists) = match StateFile::<Entry>::open(folder, Kind::Lists) {
            Err(StateFileError::Damaged { path, what, .. }) => {
                tracing::warn!(path = %path.display(), what, "other routers' lists are damaged; they and the targets will tell them again");
                let remove = |source| StateFileError::Folder { path: path.clone(), source };
                std::fs::remove_file(&path).map_err(remove)?;
                StateFile::open(folder, Kind::Lists)?
            }
            opened => opened?,
        };
        let lists: Lists = lists.into_iter().collect();
        let (changes, changed) = watch::channel(Vec::new());
        let writer = tokio::spawn(write(file, changed));
        Ok((Self { lists: lists.clone(), stale: false, written: Moment::ZERO, changes, writer }, lists))
    }

    pub(crate) fn keep(&mut self, vipa: IpAddr, lists: StoredLists) {
        self.stale = true;
        self.lists.insert(vipa, lists);
    }

    /// This VIPA is none of this router's any more.
    pub(crate) fn forget(&mut self, vipa: IpAddr) {
        self.stale |= self.lists.remove(&vipa).is_some();
    }

    /// Has what has changed written, at its pace.
    pub(crate) fn tend(&mut self, now: Moment) {
        if self.stale && (self.written == Moment::ZERO || now.since(self.written) >= PACE) {
            (self.stale, self.written) = (false, now);
            self.changes.send_replace(self.lists.clone().into_iter().collect());
        }
    }

    /// Returns when the last lists are on the disk.
    pub(crate) async fn close(mut self) {
        if self.stale {
            self.changes.send_replace(std::mem::take(&mut self.lists).into_iter().collect());
        }
        drop(self.changes);
        if self.writer.await.is_err() {
            tracing::warn!("the last change of other routers' lists may be lost");
        }
    }
}

async fn write(file: StateFile<Entry>, mut changes: watch::Receiver<Vec<Entry>>) {
    let file = Arc::new(file);
    // After the sender is gone its last word is still to be seen.
    while changes.changed().await.is_ok() {
        let lists = changes.borrow_and_update().clone();
        let file = Arc::clone(&file);
        let stored = tokio::task::spawn_blocking(move || file.store(&lists)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(%error, "other routers' lists could not be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_model::{Delivery, Forwarding, PortRange, Protocol, ServicePath, TargetPath};

    use super::*;

    #[tokio::test]
    async fn lists_are_there_after_a_restart_and_a_damaged_file_costs_nothing_else() {
        let folder = std::env::temp_dir().join(format!("vipa-lists-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let (vipa, target) = (Ipv4Addr::new(192, 0, 2, 10).into(), Ipv4Addr::new(198, 51, 100, 21).into());
        let path = Delivery { forwarding: Forwarding::Gue, ..Delivery::default() }.path_to(target);
        let service = ServicePath { protocol: Protocol::Tcp, ports: PortRange::one(80), path };
        let lists = StoredLists { distributed: Some(Vec::new()), paths: vec![TargetPath { target, service }] };
        let (mut keeper, known) = ListKeeper::open(&folder).unwrap();
        assert!(known.is_empty());
        keeper.keep(vipa, StoredLists::default());
        keeper.tend(Moment(1));
        keeper.keep(vipa, lists.clone());
        keeper.tend(Moment(2));
        keeper.close().await;
        let (keeper, known) = ListKeeper::open(&folder).unwrap();
        assert_eq!(known, [(vipa, lists)].into());
        keeper.close().await;
        std::fs::write(folder.join("lists.json"), "{").unwrap();
        assert!(ListKeeper::open(&folder).unwrap().1.is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
