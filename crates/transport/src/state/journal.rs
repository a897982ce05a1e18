//! A journal: entries that are written one after the other, and bounded.
//!
//! ```text
//!  NAME.journal     {"version":1,"journal":"events"}      one line
//!                   f3a9…  {…}                            for each entry: half of its SHA-256, two spaces, JSON
//!  NAME.journal.1   what was before, of the same form
//! ```
//! Either file has at most half of what is allowed; a full one takes the place of the older. A thread of its own takes all entries that
//! wait and writes them with one sync. Nobody waits for it: an entry that finds no room on the way is counted and lost. What a power
//! failure leaves of the last line is cut off, and a damaged line costs itself alone.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{Builder, JoinHandle},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{VERSION, checksum};

/// Entries on their way to the disk.
const WAITING: usize = 4_096;
/// Digits of a line's checksum.
const DIGITS: usize = 32;

/// Writes entries down.
pub struct Journal<T> {
    /// There until the end.
    entries: Option<mpsc::SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    lost: u64,
    of: PhantomData<fn(T)>,
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct JournalHeader {
    version: u32,
    journal: String,
}

/// What a file holds.
struct Content<T> {
    entries: Vec<T>,
    /// Bytes up to the end of the last whole line.
    whole: u64,
    damaged: u64,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens `folder/name.journal`, and gives what it and the one before hold, the oldest first. Both have `limit` bytes at most. A file
    /// that is not understood costs its entries and nothing else; the log says so.
    pub fn open(folder: &Path, name: &str, limit: u64) -> io::Result<(Self, Vec<T>)> {
        fs::create_dir_all(folder)?;
        let paths =
            Paths { now: folder.join(format!("{name}.journal")), before: folder.join(format!("{name}.journal.1")) };
        let mut entries = Vec::new();
        if let Some(before) = read::<T>(&paths.before, name)? {
            entries.extend(before.entries);
        }
        let file = match read::<T>(&paths.now, name)? {
            Some(now) => {
                entries.extend(now.entries);
                let file = OpenOptions::new().append(true).open(&paths.now)?;
                file.set_len(now.whole)?;
                file
            }
            None => begin(&paths.now, name)?,
        };
        let (entries_in, waiting) = mpsc::sync_channel(WAITING);
        let disk = Disk { length: file.metadata()?.len(), file, paths, name: name.to_owned(), half: limit / 2 };
        let writer = Builder::new().name(format!("journal-{name}")).spawn(move || disk.run(&waiting))?;
        Ok((Self { entries: Some(entries_in), writer: Some(writer), lost: 0, of: PhantomData }, entries))
    }

    /// Never waits. What finds no room is lost and counted.
    pub fn append(&mut self, entry: &T) {
        let sent =
            line(entry).ok().zip(self.entries.as_ref()).is_some_and(|(line, entries)| entries.try_send(line).is_ok());
        self.lost += u64::from(!sent);
    }
}

impl<T> Journal<T> {
    /// Entries that found no room since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// Waits until all is on the disk.
impl<T> Drop for Journal<T> {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::warn!("the last entries of a journal may be lost");
        }
    }
}

fn line<T: Serialize>(entry: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(entry)?;
    let mut line = checksum(&json).into_bytes();
    line.truncate(DIGITS);
    line.extend(b"  ");
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// `None`: there is nothing that can be gone on with.
fn read<T: DeserializeOwned>(path: &Path, name: &str) -> io::Result<Option<Content<T>>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = path.display();
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let header = lines.next().and_then(|line| serde_json::from_slice::<JournalHeader>(line).ok());
    match header {
        Some(header) if header.version == VERSION && header.journal == name => {}
        Some(header) => {
            tracing::warn!(%path, version = header.version, "this journal is of another release; a new one is begun");
            return Ok(None);
        }
        None => {
            tracing::warn!(%path, "this is no journal of ours, or its beginning is damaged; a new one is begun");
            return Ok(None);
        }
    }
    let mut content = Content { entries: Vec::new(), whole: 0, damaged: 0 };
    let mut end = text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1) as u64;
    content.whole = end;
    for line in lines {
        end += line.len() as u64;
        if !line.ends_with(b"\n") {
            content.damaged += 1;
            break;
        }
        content.whole = end;
        match entry(line) {
            Some(entry) => content.entries.push(entry),
            None => content.damaged += 1,
        }
    }
    if content.damaged > 0 {
        tracing::warn!(%path, lines = content.damaged, "damaged lines of this journal are left out");
    }
    Ok(Some(content))
}

fn entry<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (digits, rest) = line.split_at_checked(DIGITS)?;
    let json = rest.strip_prefix(b"  ")?.strip_suffix(b"\n")?;
    let fits = checksum(json).as_bytes().starts_with(digits);
    fits.then(|| serde_json::from_slice(json).ok()).flatten()
}

fn begin(path: &Path, name: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    let mut header = serde_json::to_vec(&JournalHeader { version: VERSION, journal: name.to_owned() })?;
    header.push(b'\n');
    file.write_all(&header)?;
    Ok(file)
}

struct Paths {
    now: PathBuf,
    before: PathBuf,
}

/// The writer's end.
struct Disk {
    paths: Paths,
    name: String,
    file: File,
    length: u64,
    half: u64,
}

impl Disk {
    fn run(mut self, waiting: &mpsc::Receiver<Vec<u8>>) {
        let mut fails = false;
        while let Ok(first) = waiting.recv() {
            let mut page = first;
            while (page.len() as u64) < self.half / 4
                && let Ok(next) = waiting.try_recv()
            {
                page.extend(next);
            }
            match self.write(&page) {
                Ok(()) => fails = false,
                Err(error) => {
                    if !fails {
                        tracing::warn!(path = %self.paths.now.display(), %error, "a journal cannot be written");
                    }
                    fails = true;
                }
            }
        }
    }

    fn write(&mut self, page: &[u8]) -> io::Result<()> {
        let length = page.len() as u64;
        if self.length + length > self.half {
            fs::rename(&self.paths.now, &self.paths.before)?;
            self.file = begin(&self.paths.now, &self.name)?;
            self.length = self.file.metadata()?.len();
        }
        self.file.write_all(page)?;
        self.length += length;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests;
