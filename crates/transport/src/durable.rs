//! Durable replacement of a file: after a power failure it has the old text or the new one, and never half of one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces the text of the file at `path`: written to a file beside it, synced, renamed over it, and the folder synced.
/// When this returns, the new text survives a power failure. Blocks on the disk.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    put_in_place(File::create(&beside)?, &beside, path, text)
}

/// As [`replace`], of a file that only those may read whom `mode` allows to.
pub fn replace_with_mode(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One that a crash has left may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    put_in_place(file, &beside, path, text)
}

fn put_in_place(mut file: File, beside: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_new_text_and_nothing_stays_beside_it() {
        let folder = std::env::temp_dir().join(format!("vipa-durable-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.json");
        replace(&path, b"old and longer").unwrap();
        // The rest that a crash may have left.
        fs::write(folder.join("a.json.new"), "[8").unwrap();
        replace(&path, b"new").unwrap();
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((fs::read(&path).unwrap(), names), (b"new".to_vec(), vec!["a.json".into()]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error() {
        assert!(replace(Path::new("/nonexistent/vipa/a.json"), b"x").is_err());
    }
}
