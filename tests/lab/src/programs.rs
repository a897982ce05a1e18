//! Where the built programs are: beside the one that runs, as cargo puts them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The folder of the built programs, `target/release` or `target/debug`.
pub fn folder() -> Result<PathBuf> {
    let mine = std::env::current_exe().context("cannot tell where this program is")?;
    let mut folder = mine.parent().context("this program is in no folder")?.to_path_buf();
    if folder.ends_with("deps") {
        folder.pop();
    }
    Ok(folder)
}

/// The path of a program of this workspace.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(path.exists(), "{} is not built: run `make build`", path.display());
    Ok(path)
}
