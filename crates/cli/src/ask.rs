//! One question to a router over its admin socket.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use vipa_model::config::{ADMIN_SOCKET, Program};
use vipa_protocol::admin::{Answer, Request, Versioned};

use crate::status::{NoAnswer, NotFound};

/// A router that has not answered by then is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, bytes; a million connections have about 200 MB.
const MAX_ANSWER: u64 = 1 << 30;

/// The socket asked for, or the only one there is.
pub(crate) fn find_socket(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    match asked {
        Some(path) => Ok(path.to_owned()),
        None => only_socket(Path::new(Program::Router.runtime_root())),
    }
}

/// The admin sockets below `folder`: each router on this machine has one in a folder of its own.
pub(crate) fn sockets_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_socket = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let mut sockets: Vec<_> = entries.map(|entry| entry.path().join(ADMIN_SOCKET)).filter(is_socket).collect();
    sockets.sort();
    sockets
}

fn only_socket(folder: &Path) -> anyhow::Result<PathBuf> {
    match &sockets_below(folder)[..] {
        [] => bail!(NoAnswer(format!(
            "no router runs on this machine, or you may not use its socket: there is no {}/NAME/{ADMIN_SOCKET} to be seen; \
             start vipad, use sudo, or say --socket PATH",
            folder.display()
        ))),
        [only] => Ok(only.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("several routers run on this machine; choose one with --socket: {}", names.join(", "))
        }
    }
}

/// Asks and waits for the answer; an answer that is an error is one. What is said before it goes to `progress`.
pub(crate) fn ask(socket: &Path, request: &Request, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Answer> {
    ask_within(PATIENCE, socket, request, progress)
}

/// As [`ask`], but each step may take no longer than `patience`.
pub(crate) fn ask_within(
    patience: Duration,
    socket: &Path,
    request: &Request,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).with_context(|| {
        let at = socket.display();
        NoAnswer(format!("cannot reach a router at {at}; does vipad run there, and may you use its socket?"))
    })?;
    stream.set_read_timeout(Some(patience)).context("cannot set a time limit")?;
    stream.set_write_timeout(Some(patience)).context("cannot set a time limit")?;
    let mut line = serde_json::to_string(&Versioned::new(request)).context("cannot write the question")?;
    line.push('\n');
    (&stream).write_all(line.as_bytes()).context("the router does not take the question")?;
    let mut lines = BufReader::new(&stream).take(MAX_ANSWER);
    loop {
        let mut answer = String::new();
        lines.read_line(&mut answer).with_context(|| {
            NoAnswer(format!("the router did not answer within {} s; look at its log", patience.as_secs()))
        })?;
        if answer.is_empty() {
            bail!(NoAnswer("the router closed the connection without an answer; look at its log".into()));
        }
        match read(&answer)? {
            Answer::Progress(said) => progress(&said.sentence),
            Answer::Error(sentence) => bail!("the router says: {sentence}"),
            Answer::NotFound(sentence) => bail!(NotFound(format!("the router says: {sentence}"))),
            answer => return Ok(answer),
        }
    }
}

/// Reads the version first, and then the rest as it stands: read together they would all be kept in between, which takes longer than
/// all else with the status of a thousand VIPAs.
fn read(line: &str) -> anyhow::Result<Answer> {
    #[derive(Deserialize)]
    struct Version {
        version: u16,
    }
    const OTHER: &str = "vipactl does not understand the router; install the same release";
    let Version { version } = serde_json::from_str(line).context(OTHER)?;
    Versioned { version, body: () }.current()?;
    serde_json::from_str(line).context(OTHER)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn one_socket_is_found_and_of_several_one_must_be_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let none = only_socket(folder.path()).unwrap_err().to_string();
        assert!(none.starts_with("no router runs on this machine"), "{none}");

        let of = |router: &str| {
            fs::create_dir(folder.path().join(router)).unwrap();
            folder.path().join(router).join("admin.sock")
        };
        let r1 = of("r1");
        let _first = UnixListener::bind(&r1).unwrap();
        fs::write(of("r3"), "no socket").unwrap();
        assert_eq!(only_socket(folder.path()).unwrap(), r1);

        let _second = UnixListener::bind(of("r2")).unwrap();
        let several = only_socket(folder.path()).unwrap_err().to_string();
        assert!(several.contains("--socket") && several.contains("r2/admin.sock"), "{several}");
    }
}
