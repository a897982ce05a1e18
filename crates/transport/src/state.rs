//! A node's state on disk: its grants, the operators' decisions, the voters, and other routers' lists.
//!
//! A grant is on the disk before it is sent, because a voter that forgot it could grant the same epoch twice; the same
//! holds for decisions and lists of voters. A file is replaced whole (`durable`).
//!
//! ```text
//!  {"version":1,"sha256":"…","entries":      one line; the checksum is of the bytes that follow, up to the last brace
//!  [
//!  {…},                                      one line for each entry
//!  {…}
//!  ]}
//! ```
//! The voting loop never waits for the disk (`GroupCommit`).

mod group_commit;
mod journal;
mod lock;

use std::{
    fmt, fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vipa_model::config::Program;

use crate::durable;
pub use group_commit::{GroupCommit, Outcome, Writes};
pub use journal::Journal;
pub use lock::StateLock;

/// Version of the format. A file of a later version is refused, because this release cannot interpret it.
const VERSION: u32 = 1;

/// The files of a node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Votes,
    Decisions,
    Voters,
    Lists,
}

impl Kind {
    fn file_name(self) -> &'static str {
        match self {
            Self::Votes => "votes.json",
            Self::Decisions => "decisions.json",
            Self::Voters => "voters.json",
            Self::Lists => "lists.json",
        }
    }

    /// What to do about a file that cannot be used.
    fn remedy(self) -> &'static str {
        match self {
            Self::Votes => {
                "put a copy back; without one, remove the file while every other node runs and every VIPA has its owner, \
                 because then this node learns from the owners' beats what it must not grant again"
            }
            Self::Decisions => {
                "put a copy back; without one, remove the file while another node runs, which tells this one what was decided"
            }
            Self::Lists => "remove the file: the other routers and the targets tell this one what was in it",
            Self::Voters => {
                "put a copy back; without one, see to it that `voters` in the configuration are those that the other \
                 nodes go by (`vipactl status`), and remove the file"
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error(
        "cannot use {path} for what this node must remember: {source}; check that state_dir exists and is writable"
    )]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "{folder} is in use by {holder}: a state directory is of one node and one process; stop that process, or give this node a \
         `node.state_dir` of its own"
    )]
    InUse { folder: PathBuf, holder: String },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({what}); {remedy}")]
    Damaged { path: PathBuf, what: String, remedy: &'static str },
    #[error(
        "{path} is of format {found}, and this release knows formats up to {VERSION}: start the release that wrote it"
    )]
    Later { path: PathBuf, found: u32 },
    #[error(
        "{former} has the votes of an earlier release, and a node that forgets its votes may let two routers own one VIPA: \
         with vipad and vipa-agent stopped, move them by `mkdir -p {folder} && mv {former}/* {folder}/`, give them to the user that \
         the service runs as, and remove {former}; or set node.state_dir = \"{former}\""
    )]
    LeftBehind { folder: PathBuf, former: PathBuf },
}

/// The default of `node.state_dir` in releases before routers and agents had folders of their own.
const FORMER_STATE_DIR: &str = "/var/lib/vipa";

/// Refuses to begin without votes in `folder`, a default of `node.state_dir`, where the former default still holds some.
pub fn check_former_state(folder: &Path) -> Result<(), StateFileError> {
    let is_default = [Program::Router, Program::Agent].iter().any(|program| folder.starts_with(program.state_root()));
    if is_default { check_left_behind(folder, Path::new(FORMER_STATE_DIR)) } else { Ok(()) }
}

fn check_left_behind(folder: &Path, former: &Path) -> Result<(), StateFileError> {
    let votes = Kind::Votes.file_name();
    // What may not be looked at may be there.
    let is_missing = |path: PathBuf| matches!(path.try_exists(), Ok(false));
    if is_missing(folder.join(votes)) && !is_missing(former.join(votes)) {
        return Err(StateFileError::LeftBehind { folder: folder.into(), former: former.into() });
    }
    Ok(())
}

/// A file of `T`s.
pub struct StateFile<T> {
    path: PathBuf,
    entries: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for StateFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateFile").field(&self.path).finish()
    }
}

/// The first line of a file, parsed as if the entries were not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    sha256: String,
    #[serde(rename = "entries")]
    _entries: (),
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    /// Opens the file of this kind in `folder`, which is created if it does not exist, and reads its entries.
    pub fn open(folder: &Path, kind: Kind) -> Result<(Self, Vec<T>), StateFileError> {
        Self::open_checked(folder, kind, |_| Ok(()))
    }

    /// As [`open`](Self::open); a file with an impossible entry is damaged. `check` returns why an entry is impossible.
    pub fn open_checked(
        folder: &Path,
        kind: Kind,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<(Self, Vec<T>), StateFileError> {
        fs::create_dir_all(folder).map_err(|source| StateFileError::Folder { path: folder.into(), source })?;
        let path = folder.join(kind.file_name());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self { path, entries: PhantomData }, Vec::new()));
            }
            Err(source) => return Err(StateFileError::Read { path, source }),
        };
        let entries = parse_checked(&text, check).map_err(|wrong| match wrong {
            ParseFailure::Damaged(what) => StateFileError::Damaged { path: path.clone(), what, remedy: kind.remedy() },
            ParseFailure::Later(found) => StateFileError::Later { path: path.clone(), found },
        })?;
        let file = Self { path, entries: PhantomData };
        if is_bare(&text) {
            file.store(&entries).map_err(|source| StateFileError::Folder { path: folder.into(), source })?;
            tell_rewritten(&file.path);
        }
        Ok((file, entries))
    }

    /// Replaces the contents of the file; when this returns, `entries` survive a power failure. Blocks on the disk.
    pub fn store(&self, entries: &[T]) -> io::Result<()> {
        durable::replace(&self.path, &format(entries)?)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

enum ParseFailure {
    Damaged(String),
    Later(u32),
}

fn format<T: Serialize>(entries: &[T]) -> io::Result<Vec<u8>> {
    let mut body = b"[\n".to_vec();
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            body.extend(b",\n");
        }
        serde_json::to_writer(&mut body, entry)?;
    }
    body.extend(b"\n]");
    let mut text = format!("{{\"version\":{VERSION},\"sha256\":\"{}\",\"entries\":\n", checksum(&body)).into_bytes();
    text.extend(body);
    text.extend(b"}\n");
    Ok(text)
}

fn parse_checked<T: DeserializeOwned>(
    text: &[u8],
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Vec<T>, ParseFailure> {
    let entries: Vec<T> = parse(text)?;
    entries.iter().try_for_each(check).map_err(ParseFailure::Damaged)?;
    Ok(entries)
}

/// Encodes one value in the format of these files: with a version and a checksum.
pub fn encode_value<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    format(std::slice::from_ref(value))
}

/// Decodes a value of [`encode_value`]; the error describes what is wrong with it.
pub fn decode_value<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let mut entries: Vec<T> = parse(text).map_err(|wrong| match wrong {
        ParseFailure::Damaged(what) => what,
        ParseFailure::Later(found) => {
            format!("it is of format {found}, and this release knows formats up to {VERSION}")
        }
    })?;
    match (entries.pop(), entries.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err("it has not one entry".into()),
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<Vec<T>, ParseFailure> {
    let damaged = |what: &dyn fmt::Display| ParseFailure::Damaged(what.to_string());
    if is_bare(text) {
        return serde_json::from_slice(text).map_err(|error| damaged(&error));
    }
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged(&"its first line has no end"))?;
    let (first, rest) = text.split_at(end);
    let header = [first, b"null}"].concat();
    let header: Header = serde_json::from_slice(&header).map_err(|_| damaged(&"its first line is not one of ours"))?;
    match header.version {
        VERSION => {}
        later if later > VERSION => return Err(ParseFailure::Later(later)),
        none => return Err(damaged(&format_args!("there is no format {none}"))),
    }
    let body = rest[1..].strip_suffix(b"}\n").ok_or_else(|| damaged(&"its end is missing"))?;
    if checksum(body) != header.sha256 {
        return Err(damaged(&"its checksum does not fit what it holds"));
    }
    serde_json::from_slice(body).map_err(|error| damaged(&error))
}

/// Whether a release before format 1 wrote this: the bare list, in which damage that leaves it a list does not show.
fn is_bare(text: &[u8]) -> bool {
    text.starts_with(b"[")
}

/// Logs once that a file of an earlier release has been read without a checksum, and has one now.
pub fn tell_rewritten(path: &Path) {
    tracing::info!(path = %path.display(), "an earlier release wrote this file without a checksum; it is rewritten with one");
}

fn checksum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
