//! What the agent changes on its host, on disk: written down first, so that a clean stop can undo it and a successor of a
//! crashed agent knows what is its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use vipa_transport::durable;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error("cannot use {path} to remember what is changed on this host: {source}; check state_dir")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {source}; check this host by hand, then remove the file")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// A value and the file that has it.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    file: PathBuf,
    pub(crate) value: T,
}

impl<T: Default + Serialize + DeserializeOwned> Kept<T> {
    /// What a predecessor left in this file of the state folder, or nothing.
    pub(crate) fn open(state_dir: &Path, name: &str) -> Result<Self, KeptError> {
        fs::create_dir_all(state_dir).map_err(|source| KeptError::File { path: state_dir.into(), source })?;
        let file = state_dir.join(name);
        let value = match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| KeptError::Damaged { path: file.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => T::default(),
            Err(source) => return Err(KeptError::File { path: file, source }),
        };
        Ok(Self { file, value })
    }

    /// Writes it down, whole or not at all, whatever becomes of the host's power. Blocks on the disk.
    pub(crate) fn save(&self) -> Result<(), KeptError> {
        let text = serde_json::to_vec_pretty(&self.value).expect("addresses, numbers and strings are JSON");
        durable::replace(&self.file, &text).map_err(|source| self.error(source))
    }

    /// All is undone.
    pub(crate) fn remove(self) -> Result<(), KeptError> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    fn error(&self, source: io::Error) -> KeptError {
        KeptError::File { path: self.file.clone(), source }
    }
}

/// What a crashed predecessor had set up. A successor learns only little by little, router by router, what is wanted; until all
/// have had the time to tell, what was there stays.
#[derive(Debug)]
pub(crate) struct Inheritance<T> {
    left: T,
    until: Instant,
}

/// Time for every router to find a new agent and tell it everything.
const GRACE: Duration = Duration::from_secs(10);

impl<T: Default> Inheritance<T> {
    pub(crate) fn new(left: T) -> Self {
        Self { left, until: Instant::now() + GRACE }
    }

    /// What is still to be left alone.
    pub(crate) fn get(&self) -> &T {
        &self.left
    }

    /// Whether it has just come to its end.
    pub(crate) fn ends_now(&mut self) -> bool
    where
        T: PartialEq,
    {
        let ends = Instant::now() >= self.until && self.left != T::default();
        if ends {
            self.give_up();
        }
        ends
    }

    pub(crate) fn give_up(&mut self) {
        self.left = T::default();
    }
}
