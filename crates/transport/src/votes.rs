//! A node's memory: files that keep across restarts what it has granted, and what operators have decided.
//!
//! A grant is on the disk before it is sent, or an amnesiac voter could grant the same epoch twice. A file is JSON,
//! replaced whole: written beside, synced, renamed over, and the folder synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::durable;

/// Votes on their way to the disk.
const UNDER_WAY: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum VoteFileError {
    #[error(
        "cannot use {path} for what this node must remember: {source}; check that state_dir exists and is writable"
    )]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({source}); restore the file, or remove it while no other node is restarting")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

#[derive(Debug)]
pub struct VoteFile {
    path: PathBuf,
}

impl VoteFile {
    /// Opens `votes.json` in `folder`, which is made if it is not there, and reads what it holds.
    pub fn open<V: DeserializeOwned>(folder: &Path) -> Result<(Self, Vec<V>), VoteFileError> {
        Self::open_as(folder, "votes.json")
    }

    /// As `open`, for something else that must be remembered.
    pub fn open_as<V: DeserializeOwned>(folder: &Path, name: &str) -> Result<(Self, Vec<V>), VoteFileError> {
        fs::create_dir_all(folder).map_err(|source| VoteFileError::Folder { path: folder.into(), source })?;
        let path = folder.join(name);
        let votes = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| VoteFileError::Damaged { path: path.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(VoteFileError::Read { path, source }),
        };
        Ok((Self { path }, votes))
    }

    /// Replaces the votes by `votes`; when this returns they survive a power failure. Blocks on the disk.
    pub fn store<V: Serialize>(&self, votes: &[V]) -> io::Result<()> {
        durable::replace(&self.path, &serde_json::to_vec_pretty(votes)?)
    }
}

/// Stores votes one after the other beside the loop that gives them.
#[derive(Debug)]
pub struct VoteKeeper<V> {
    tasks: mpsc::Sender<(u64, Vec<V>)>,
}

impl<V: Serialize + Send + Sync + 'static> VoteKeeper<V> {
    /// Call it within a runtime. The tokens of stored votes come out of the receiver; a disk that refuses is logged, and
    /// the vote it refused is simply not given.
    #[must_use]
    pub fn start(file: VoteFile) -> (Self, mpsc::Receiver<u64>) {
        let (tasks, tasks_in) = mpsc::channel(UNDER_WAY);
        let (stored, stored_out) = mpsc::channel(UNDER_WAY);
        tokio::spawn(keep(file, tasks_in, stored));
        (Self { tasks }, stored_out)
    }

    pub fn store(&self, token: u64, votes: Vec<V>) {
        if self.tasks.try_send((token, votes)).is_err() {
            tracing::error!("too much waits for the disk; this vote or decision is not given");
        }
    }
}

async fn keep<V: Serialize + Send + Sync + 'static>(
    file: VoteFile,
    mut tasks: mpsc::Receiver<(u64, Vec<V>)>,
    stored: mpsc::Sender<u64>,
) {
    let file = Arc::new(file);
    while let Some((token, votes)) = tasks.recv().await {
        let file = Arc::clone(&file);
        match tokio::task::spawn_blocking(move || file.store(&votes)).await {
            Ok(Ok(())) => {
                if stored.send(token).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "a vote or decision could not be stored, so it is not given"),
            Err(error) => tracing::error!(%error, "storing failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("vipa-votes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn votes_are_there_after_a_restart_and_the_last_store_counts() {
        let folder = folder("restart");
        let (file, none) = VoteFile::open::<u64>(&folder).unwrap();
        assert!(none.is_empty());
        file.store(&[1_u64]).unwrap();
        file.store(&[2_u64, 3]).unwrap();
        assert_eq!(VoteFile::open::<u64>(&folder).unwrap().1, [2, 3]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn damaged_votes_are_an_error_and_never_an_empty_list() {
        let folder = folder("damaged");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("votes.json"), "[1, ").unwrap();
        assert!(matches!(VoteFile::open::<u64>(&folder), Err(VoteFileError::Damaged { .. })));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_half_written_store_leaves_the_old_votes() {
        let folder = folder("torn");
        let (file, _) = VoteFile::open::<u64>(&folder).unwrap();
        file.store(&[7_u64]).unwrap();
        fs::write(folder.join("votes.json.new"), "[8").unwrap();
        assert_eq!(VoteFile::open::<u64>(&folder).unwrap().1, [7]);
        fs::remove_dir_all(folder).unwrap();
    }
}
