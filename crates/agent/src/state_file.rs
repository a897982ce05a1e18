//! What the agent changes on its host, on disk: written down first, so that the next agent knows what is its own, and
//! `vipa-agent cleanup` what is to be undone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use vipa_transport::{durable, state};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    #[error("cannot use {path} to remember what is changed on this host: {source}; check state_dir")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged ({what}); compare this host's addresses and tunnels with what it should have, then remove the file"
    )]
    Damaged { path: PathBuf, what: String },
}

/// A value and the file that has it.
#[derive(Debug)]
pub(crate) struct StateFile<T> {
    file: PathBuf,
    pub(crate) value: T,
    written: u64,
}

impl<T: Default + Serialize + DeserializeOwned> StateFile<T> {
    /// What a predecessor left in this file of the state folder, or nothing.
    pub(crate) fn open(state_dir: &Path, name: &str) -> Result<Self, StateFileError> {
        fs::create_dir_all(state_dir).map_err(|source| StateFileError::File { path: state_dir.into(), source })?;
        let file = state_dir.join(name);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file, value: T::default(), written: 0 });
            }
            Err(source) => return Err(StateFileError::File { path: file, source }),
        };
        let value = decode(&text).map_err(|what| StateFileError::Damaged { path: file.clone(), what })?;
        let mut kept = Self { file, value, written: 0 };
        if is_bare(&text) {
            kept.save()?;
            state::tell_rewritten(&kept.file);
        }
        Ok(kept)
    }

    /// Writes it down, whole or not at all, whatever becomes of the host's power. Blocks on the disk.
    pub(crate) fn save(&mut self) -> Result<(), StateFileError> {
        let text = state::encode_value(&self.value).map_err(|source| self.error(source))?;
        self.written += 1;
        durable::replace(&self.file, &text).map_err(|source| self.error(source))
    }

    /// How often it has been written since it was opened.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// All is undone.
    pub(crate) fn remove(self) -> Result<(), StateFileError> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    fn error(&self, source: io::Error) -> StateFileError {
        StateFileError::File { path: self.file.clone(), source }
    }
}

/// With a version and a checksum, or the bare value.
fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if is_bare(text) {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    } else {
        state::decode_value(text)
    }
}

/// Whether an earlier release wrote this: the value without a checksum, in many lines.
fn is_bare(text: &[u8]) -> bool {
    text.get(1) == Some(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_a_damaged_file_is_refused_with_what_to_do() {
        let folder = std::env::temp_dir().join(format!("vipa-kept-{}", std::process::id()));
        let open = || StateFile::<Vec<String>>::open(&folder, "changes.json");
        let mut kept = open().unwrap();
        kept.value = vec!["10.77.0.100".into()];
        kept.save().unwrap();
        assert_eq!(open().unwrap().value, kept.value);
        let file = folder.join("changes.json");
        let text = fs::read(&file).unwrap();
        for place in 0..text.len() {
            let mut other = text.clone();
            other[place] ^= 1;
            fs::write(&file, other).unwrap();
            let sentence = open().unwrap_err().to_string();
            assert!(sentence.contains("is damaged (") && sentence.contains("then remove the file"), "{sentence}");
        }
        fs::write(&file, b"[\n  \"10.77.0.100\"\n]").unwrap();
        assert_eq!(open().unwrap().value, kept.value, "as earlier releases wrote it");
        assert_eq!(fs::read(&file).unwrap(), text, "it has a checksum from now on");
        let bare = b"[\n  \"10.77.0.100\"\n";
        fs::write(&file, bare).unwrap();
        assert!(open().unwrap_err().to_string().contains("is damaged ("));
        assert_eq!(fs::read(&file).unwrap(), bare, "what is damaged is left to the operator");
        fs::remove_dir_all(folder).unwrap();
    }
}
