//! `vipactl top`: what a router does now, on a screen that renews itself.
//!
//! ```text
//!   sampler (a thread): asks the router ──Sample──► screen (pure): rows, order, filter ──► draw ──► terminal
//!                                                     ▲ keys, signals
//! ```
//! The terminal is given back as it was at every end: a key, an error, a panic, SIGTERM, SIGHUP, SIGINT.

mod draw;
mod sample;
mod screen;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use anyhow::Context;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use ratatui::{
    Terminal,
    backend::{CrosstermBackend, TestBackend},
    crossterm::{
        cursor,
        event::{self, Event, KeyEventKind},
        execute, terminal,
    },
};

use sample::Sample;
use screen::{Screen, View};

/// The screen of `--once` where nobody says how large it is: columns and lines.
const ONCE: (u16, u16) = (80, 24);
/// How often keys and signals are looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Time between two readings of the router
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::rates::parse_time)]
    every: Duration,
    /// What is shown first; Tab goes on to the next
    #[arg(long, value_name = "VIEW", value_enum, default_value_t = View::Vipas)]
    view: View,
    /// Print one screen and end, for scripts: as wide as COLUMNS and as high as LINES say, else 80x24
    #[arg(long)]
    once: bool,
}

/// Shows the screen until the operator has seen enough. The text that is to be printed then.
pub(crate) fn run(socket: &Path, options: &Options) -> anyhow::Result<String> {
    if options.once { once(socket, options) } else { live(socket, options).map(|()| String::new()) }
}

/// Two readings, for rates, and the screen as text.
fn once(socket: &Path, options: &Options) -> anyhow::Result<String> {
    let mut screen = Screen::new(options.view);
    screen.update(Sample::read(socket)?);
    std::thread::sleep(options.every);
    screen.update(Sample::read(socket)?);
    let size = |name: &str, otherwise: u16| {
        let told = std::env::var(name).ok().and_then(|size| size.parse().ok());
        told.unwrap_or(otherwise).clamp(20, 1_000)
    };
    print(&mut screen, size("COLUMNS", ONCE.0), size("LINES", ONCE.1))
}

/// The screen as lines of text.
fn print(screen: &mut Screen, columns: u16, lines: u16) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).context("cannot draw")?;
    terminal.draw(|frame| draw::draw(frame, screen)).context("cannot draw")?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..lines {
        let line: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text.trim_end_matches('\n').to_owned() + "\n")
}

/// The terminal, ours until this is dropped.
struct Raw;

impl Raw {
    fn begin() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let raw = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            earlier(panic);
        }));
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back; twice does no harm. There is nobody to tell when it cannot be.
fn restore() {
    let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

fn live(socket: &Path, options: &Options) -> anyhow::Result<()> {
    // Before there is another thread, so that they come to nobody but us.
    let mut mask = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| mask.add(signal));
    mask.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    let signals = signals.context("cannot wait for signals")?;
    // A first reading says before anything is drawn whether there is a router to ask.
    let mut screen = Screen::new(options.view);
    screen.update(Sample::read(socket)?);
    let samples = sampler(socket.to_owned(), options.every);
    let _raw = Raw::begin().context("cannot draw here; `vipactl top --once` prints a screen to anything")?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout())).context("cannot use the terminal")?;
    loop {
        for sample in samples.try_iter() {
            match sample {
                Ok(sample) => screen.update(*sample),
                Err(why) => screen.fail(why),
            }
        }
        terminal.draw(|frame| draw::draw(frame, &mut screen)).context("cannot use the terminal")?;
        if event::poll(LOOK).context("cannot read the terminal")?
            && let Event::Key(key) = event::read().context("cannot read the terminal")?
            && key.kind != KeyEventKind::Release
            && screen.key(key).is_break()
        {
            return Ok(());
        }
        if signals.read_signal().context("cannot wait for signals")?.is_some() {
            return Ok(());
        }
    }
}

/// Reads the router again and again, beside the screen.
fn sampler(socket: PathBuf, every: Duration) -> mpsc::Receiver<Result<Box<Sample>, String>> {
    let (send, samples) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(every);
            let sample = Sample::read(&socket).map(Box::new).map_err(|error| format!("{error:#}"));
            if send.send(sample).is_err() {
                return;
            }
        }
    });
    samples
}
