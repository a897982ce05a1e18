//! The sole right to a node's state: two processes with one folder would each forget what the other has granted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use vipa_model::printable;

use super::StateFileError;

/// The file that is locked, in the folder. It holds the process id and the command of who has it, and stays when that ends.
const FILE: &str = "lock";
/// Bytes of a command that are kept.
const COMMAND: usize = 200;

/// Holds a state folder until it is dropped or the process ends, however it ends (flock(2)).
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

impl StateLock {
    /// Takes the folder, which is made if it is not there. Never waits.
    pub fn take(folder: &Path) -> Result<Self, StateFileError> {
        let cannot = |source| StateFileError::Folder { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(cannot)?;
        let path = folder.join(FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = holder_of(&path).unwrap_or_else(|| "another process".into());
                return Err(StateFileError::InUse { folder: folder.into(), holder });
            }
            Err((_, errno)) => return Err(cannot(errno.into())),
        };
        write_holder(&mut file).map_err(cannot)?;
        Ok(Self { _file: file })
    }

    /// Who has the folder, as in a sentence: `process 4711 (vipad --config r1.toml)`; `None`: nobody. Takes nothing.
    pub fn holder(folder: &Path) -> io::Result<Option<String>> {
        let path = folder.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err((_, Errno::EWOULDBLOCK)) => Ok(Some(holder_of(&path).unwrap_or_else(|| "another process".into()))),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    file.set_len(0)?;
    writeln!(file, "{} {}", std::process::id(), printable(&command.join(" "), COMMAND))
}

fn holder_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(2 * COMMAND as u64).read_to_string(&mut text).ok()?;
    let (pid, command) = text.trim_end().split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    Some(format!("process {pid} ({})", printable(command, COMMAND)))
}
