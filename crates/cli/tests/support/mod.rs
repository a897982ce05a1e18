//! A router that answers whatever it is asked, for as long as a test lasts.

#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use vipa_protocol::admin::{Answer, Request, Status, Versioned};

/// Answers each client's question until the test ends.
pub fn serve(folder: &Path, mut answer: impl FnMut(Request) -> Answer + Send + 'static) -> PathBuf {
    let path = folder.join("r1.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut asked = String::new();
            BufReader::new(&client).read_line(&mut asked).expect("a question");
            let request: Versioned<Request> = serde_json::from_str(&asked).expect("a request");
            let answer = answer(request.current().expect("this version"));
            let line = serde_json::to_string(&Versioned::new(answer)).expect("JSON") + "\n";
            // A client may have seen enough.
            let _ = client.write_all(line.as_bytes());
        }
    });
    path
}

/// The status of a router that has nothing, and was started by this configuration.
pub fn status(config: &Path, recording: Option<&Path>) -> Status {
    let text = serde_json::json!({
        "node": "r1", "cluster": "demo", "incarnation": 3, "uptime_ms": 192_000, "voters": ["r1"], "voters_version": 1,
        "links": [], "vipas": [], "connections": 0, "capacity": 1000, "config_file": config, "recording": recording,
    });
    serde_json::from_value(text).expect("a status")
}

pub fn vipactl(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipactl"));
    command.arg("--socket").arg(socket).args(arguments).env("COLUMNS", "80");
    command.output().expect("vipactl runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
