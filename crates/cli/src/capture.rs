//! `vipactl capture`: packets that come in and go out, each with its fate, as a file that Wireshark reads.

mod pcapng;

use std::{
    fs::File,
    io::{BufWriter, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use vipa_protocol::admin::{Answer, CaptureFilter, Captured, DEFAULT_CAPTURED, MAX_CAPTURE_S, MAX_CAPTURED, Request};

use crate::ask;
use pcapng::Writer;

/// Between two readings of what was captured.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The file, in pcapng format; `-`: the standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// Only packets from or to this VIPA
    #[arg(long, value_name = "ADDRESS")]
    vipa: Option<IpAddr>,
    /// Only packets of these fates: counters' names, or patterns such as 'dropped.*', separated by commas
    #[arg(long, value_name = "FATES", default_value = "")]
    fate: String,
    /// End after so many packets, in and out
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CAPTURED, value_parser = clap::value_parser!(u64).range(1..=MAX_CAPTURED))]
    limit: u64,
    /// End after so many seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MAX_CAPTURE_S))]
    seconds: u64,
}

/// Captures until there is enough, or SIGINT or SIGTERM; says what is in the file.
pub(crate) fn run(socket: &Path, options: &Options) -> anyhow::Result<String> {
    let Options { write, vipa, fate, limit, seconds } = options;
    let mut mask = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| mask.add(signal));
    mask.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    let signals = signals.context("cannot wait for signals")?;
    let is_file = write.as_os_str() != "-";
    let cannot = || format!("cannot write {}", write.display());
    let out: Box<dyn Write> =
        if is_file { Box::new(File::create(write).with_context(cannot)?) } else { Box::new(std::io::stdout()) };
    let mut file = Writer::new(BufWriter::new(out)).with_context(cannot)?;
    let ask = |request| ask::ask(socket, &request, &mut |_| {});
    let filter = CaptureFilter { vipa: *vipa, fates: fate.clone(), limit: *limit, seconds: *seconds };
    ask(Request::CaptureStart { filter })?;
    let (mut packets, mut is_stopping) = (0_u64, false);
    let lost = loop {
        let Answer::Captured(Captured { packets: new, is_over, lost }) = ask(Request::CaptureRead)? else {
            bail!("the router answers another question");
        };
        for packet in &new {
            file.packet(packet).with_context(cannot)?;
        }
        packets += new.len() as u64;
        if is_over {
            break lost;
        }
        if !is_stopping && signals.read_signal().context("cannot wait for signals")?.is_some() {
            is_stopping = true;
            ask(Request::CaptureStop)?;
        }
        if new.is_empty() {
            file.flush().with_context(cannot)?;
            std::thread::sleep(LOOK);
        }
    };
    file.flush().with_context(cannot)?;
    let lost = if lost > 0 { format!("; {lost} more came faster than they could be read") } else { String::new() };
    let said = format!("{packets} packets, in and out, each with its fate as its comment{lost}\n");
    if is_file {
        return Ok(said);
    }
    eprint!("{said}");
    Ok(String::new())
}
