//! Both ends of the lab's load: real TCP connections that notice every byte. See `vipa_lab::load`.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use vipa_lab::load::{ClientSettings, ServerSettings, run, serve};

#[derive(Parser)]
#[command(name = "vipa-load", about = "Real TCP connections that notice every byte: both ends")]
enum Order {
    /// Serve: answer every message, and check that it is the one that should come
    Serve {
        #[arg(long)]
        listen: SocketAddr,
        /// Told to the clients with every answer; at most 16 bytes
        #[arg(long)]
        name: String,
    },
    /// Open connections to a VIPA and exchange messages until `finish` is read from standard input
    Run {
        #[arg(long)]
        vipa: SocketAddr,
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[arg(long, default_value_t = 500)]
        interval_ms: u64,
        #[arg(long, default_value_t = 5)]
        fresh_per_second: u32,
        #[arg(long, default_value_t = 30)]
        patience_s: u64,
        /// Source address; may be given several times
        #[arg(long)]
        source: Vec<IpAddr>,
    },
}

fn main() -> ExitCode {
    let end = match Order::parse() {
        Order::Serve { listen, name } => serve(&ServerSettings { name, listen }),
        Order::Run { vipa, connections, interval_ms, fresh_per_second, patience_s, source } => run(ClientSettings {
            vipa,
            sources: source,
            connections,
            interval: Duration::from_millis(interval_ms),
            fresh_per_second,
            patience: Duration::from_secs(patience_s),
        }),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipa-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
