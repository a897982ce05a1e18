//! `vipactl bundle`: what a bug report needs, in one archive, with secrets left out.
//!
//! Secrets are kept out twice: the configuration is read, and the values of its secret keys are replaced before anything of it is
//! written; then every text is searched for these values and for private keys, and what has them is cut there. Of the configuration's
//! comments nothing is kept. A file that is no text and holds a secret is left out whole.

mod secrets;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use vipa_protocol::admin::{Answer, ConnectionFilter, CountBy, Request};

use crate::{ask, show};
use secrets::Secrets;

/// Bytes of the longest text that is taken in; of a longer one its end.
const LONGEST_TEXT: u64 = 4 << 20;
/// Bytes of the longest recording.
const LONGEST_RECORDING: u64 = 256 << 20;
/// Lines of the log.
const LOG_LINES: &str = "5000";
/// How long another program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the two readings of what is counted.
const BETWEEN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The archive; else vipa-bundle-NODE-TIME.tar.gz in this folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The router's configuration, where the router does not say which it is
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// An archive that grows.
struct Bundle<W: Write> {
    archive: tar::Builder<GzEncoder<W>>,
    folder: String,
    secrets: Secrets,
    now: u64,
    /// What is inside, and what is not and why: a line each.
    contents: Vec<String>,
    is_complete: bool,
}

/// Collects, and says what is inside. The exit status is 5 when something could not be had.
pub(crate) fn collect(socket: &Path, options: &Options) -> anyhow::Result<(String, u8)> {
    let ask = |request: &Request| ask::ask(socket, request, &mut |_| {});
    let status = ask(&Request::Status);
    let (node, file, recording) = match &status {
        Ok(Answer::Status(status)) => {
            (status.node.to_string(), status.config_file.clone().map(PathBuf::from), status.recording.clone())
        }
        _ => ("unknown".into(), None, None),
    };
    let config = options.config.clone().or(file);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let folder = format!("vipa-bundle-{node}-{now}");
    let output = options.output.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let mut open = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(open.write(true).create_new(true), 0o600);
    let archive = open.open(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let mut bundle = Bundle {
        archive: tar::Builder::new(GzEncoder::new(archive, Compression::default())),
        folder,
        secrets: Secrets::default(),
        now,
        contents: Vec::new(),
        is_complete: true,
    };
    bundle.configuration(config.as_deref())?;
    bundle.answer("status", status)?;
    for (name, request) in questions() {
        bundle.answer(name, ask(&request))?;
    }
    std::thread::sleep(BETWEEN);
    bundle.answer("counters-1s-later", ask(&Request::Counters))?;
    bundle.host()?;
    bundle.recordings(recording.as_deref())?;
    let is_complete = bundle.is_complete;
    let contents = bundle.finish()?;
    let text = format!("{contents}\n{}: look through it before you give it away\n", output.display());
    Ok((text, if is_complete { 0 } else { crate::status::LOOK }))
}

fn questions() -> Vec<(&'static str, Request)> {
    let count = |by| Request::Connections { limit: 100, filter: ConnectionFilter::default(), count_by: Some(by) };
    vec![
        ("distribution", Request::Distribution),
        ("takeovers", Request::Takeovers),
        ("decisions", Request::Decisions),
        ("connections-by-target", count(CountBy::Target)),
        ("connections-by-state", count(CountBy::State)),
        ("connections-by-service", count(CountBy::Service)),
        ("counters", Request::Counters),
    ]
}

impl<W: Write> Bundle<W> {
    fn answer(&mut self, name: &str, answer: anyhow::Result<Answer>) -> anyhow::Result<()> {
        match answer {
            Ok(answer) => {
                self.text(&format!("{name}.json"), &show::json(&answer)?)?;
                if matches!(answer, Answer::Status(_)) {
                    self.text("status.txt", &show::text(&answer)?)?;
                }
                Ok(())
            }
            Err(error) => {
                self.missing(&format!("{name}.json"), &format!("{error:#}"));
                Ok(())
            }
        }
    }

    fn configuration(&mut self, file: Option<&Path>) -> anyhow::Result<()> {
        let name = "configuration.toml";
        let Some(file) = file else {
            self.missing(name, "the router does not say where it is; --config names it");
            return Ok(());
        };
        match fs::read_to_string(file).map(|text| Secrets::of_configuration(&text)) {
            Err(error) => self.missing(name, &format!("cannot read {}: {error}", file.display())),
            // What is wrong may be in the line with the key.
            Ok(None) => self.missing(name, &format!("{} is no TOML, so its secrets cannot be told", file.display())),
            Ok(Some((text, secrets))) => {
                self.secrets = secrets;
                self.text(name, &text)?;
            }
        }
        Ok(())
    }

    /// The machine, and the log if it may be read.
    fn host(&mut self) -> anyhow::Result<()> {
        let version =
            format!("vipactl {}\nadmin protocol {}\n", env!("CARGO_PKG_VERSION"), vipa_protocol::admin::VERSION);
        self.text("version.txt", &version)?;
        for (name, file) in [
            ("os-release.txt", "/etc/os-release"),
            ("kernel.txt", "/proc/version"),
            ("memory.txt", "/proc/meminfo"),
            ("load.txt", "/proc/loadavg"),
            ("interfaces.txt", "/proc/net/dev"),
        ] {
            match read_end(Path::new(file), LONGEST_TEXT) {
                Ok(text) => self.text(name, &String::from_utf8_lossy(&text))?,
                Err(error) => self.missing(name, &error.to_string()),
            }
        }
        let journal =
            ["--unit", "vipad*", "--unit", "vipa-router*", "--lines", LOG_LINES, "--no-pager", "--output", "short-iso"];
        match output_of("journalctl", &journal) {
            Ok(text) => self.text("log.txt", &text),
            Err(why) => {
                self.missing("log.txt", &why);
                Ok(())
            }
        }
    }

    /// What `vipactl record` has written, and what was there before.
    fn recordings(&mut self, recording: Option<&str>) -> anyhow::Result<()> {
        let Some(file) = recording else { return Ok(()) };
        for (name, file) in [("events.rec.1", format!("{file}.1")), ("events.rec", file.to_owned())] {
            match read_end(Path::new(&file), LONGEST_RECORDING) {
                Ok(bytes) if self.secrets.are_in(&bytes) => self.missing(name, "it holds a secret"),
                Ok(bytes) => self.file(name, &bytes)?,
                // There is no earlier one at first.
                Err(_) if name.ends_with(".1") => {}
                Err(error) => self.missing(name, &format!("cannot read {file}: {error}")),
            }
        }
        Ok(())
    }

    fn text(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let text = self.secrets.cut(text);
        self.file(name, text.as_bytes())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.put(name, bytes)?;
        self.contents.push(format!("{name}, {} bytes", bytes.len()));
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        let path = format!("{}/{name}", self.folder);
        self.archive.append_data(&mut header, path, bytes).context("cannot write the archive")
    }

    fn missing(&mut self, name: &str, why: &str) {
        self.is_complete = false;
        let why = self.secrets.cut(why);
        self.contents.push(format!("{name} is NOT inside: {why}"));
    }

    fn finish(mut self) -> anyhow::Result<String> {
        let contents = self.contents.join("\n") + "\n";
        self.put("CONTENTS", contents.as_bytes())?;
        let encoder = self.archive.into_inner().context("cannot write the archive")?;
        encoder.finish().context("cannot write the archive")?.flush().context("cannot write the archive")?;
        Ok(contents)
    }
}

/// The last `limit` bytes of a file.
fn read_end(file: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    if length > limit {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-i64::try_from(limit).unwrap_or(i64::MAX)))?;
    }
    let mut bytes = Vec::new();
    // Files of /proc have no length.
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What another program says, if it ends well in time.
fn output_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{program}: {why}");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let stdout = child.stdout.take().ok_or_else(|| failed(&"no output"))?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.take(LONGEST_TEXT).read_to_end(&mut bytes).map(|_| bytes)
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| failed(&error))? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                // It has nothing that would have to be put away.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(&"it took too long"));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let bytes = reader.join().map_err(|_| failed(&"its output could not be read"))?.map_err(|error| failed(&error))?;
    match status.success() {
        true if bytes.is_empty() => {
            Err(failed(&"it says nothing; the log may be elsewhere, or not be readable for you"))
        }
        true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        false => Err(failed(&status)),
    }
}
