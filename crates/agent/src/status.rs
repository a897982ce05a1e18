//! `vipa-agent status`: the state of the running agent, sent over its socket to clients that may open that.

use std::{
    io::{BufRead, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::Context;
use vipa_protocol::AgentStatus;

use crate::orders::Wish;

/// Output form of `vipa-agent status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// `vipa-agent status`: queries the running agent, and prints its answer.
pub(crate) fn ask(socket: &Path, form: Form) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no agent answers on {}; does it run, and with this configuration?", socket.display())
    })?;
    stream.write_all(&[&serde_json::to_vec(&Wish::Status)?[..], b"\n"].concat())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the agent has gone without a word")?;
    let status: AgentStatus = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
    match form {
        Form::Text => print!("{}", status.text()),
        Form::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(())
}
