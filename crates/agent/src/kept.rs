//! What the agent changes on its host, on disk: written down first, so that the next agent knows what is its own, and
//! `vipa-agent cleanup` what is to be undone.

use std::{
    fs, io,
    path::{Path, PathBuf},
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
    written: u64,
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
        Ok(Self { file, value, written: 0 })
    }

    /// Writes it down, whole or not at all, whatever becomes of the host's power. Blocks on the disk.
    pub(crate) fn save(&mut self) -> Result<(), KeptError> {
        let text = serde_json::to_vec_pretty(&self.value).expect("addresses, numbers and strings are JSON");
        self.written += 1;
        durable::replace(&self.file, &text).map_err(|source| self.error(source))
    }

    /// How often it has been written since it was opened.
    pub(crate) fn written(&self) -> u64 {
        self.written
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
