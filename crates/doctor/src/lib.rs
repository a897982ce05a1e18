//! Whether this machine can do what a configuration asks of it: `vipactl doctor`, `vipad --check --here`.
//!
//! ```text
//!  /proc /sys /etc sockets peers ──► readers ──► facts ──► checks (functions) ──► Findings ──► one line each
//! ```
//! A reader takes the folder that stands for `/`, so that it is tested on files; a check takes what was read. Nothing is changed on the
//! machine, but for a file that is written in the state directory and removed.

#![forbid(unsafe_code)]

mod drivers;
mod files;
pub mod kernel;
mod machine;
mod network;
mod offloads;
mod ports;
mod root;

use std::{fmt, time::SystemTime};

use serde::Serialize;
use vipa_model::config::Config;

pub use root::Root;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiagnosisLevel {
    Ok,
    /// It works, and would work better otherwise; or it could not be found out.
    Warning,
    /// The node does not start, or connections suffer.
    Harm,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    pub level: DiagnosisLevel,
    /// What was looked at, such as `driver net_af_packet`.
    pub subject: String,
    /// What was found; if it is not well, with the command or the setting that mends it.
    pub text: String,
}

impl Diagnosis {
    fn new(level: DiagnosisLevel, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level, subject: subject.into(), text: text.into() }
    }

    pub(crate) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(DiagnosisLevel::Ok, subject, text)
    }

    pub(crate) fn warning(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(DiagnosisLevel::Warning, subject, text)
    }

    pub(crate) fn harm(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(DiagnosisLevel::Harm, subject, text)
    }
}

/// As one line: `HARM     UDP 10.0.0.1:7400: …`.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level {
            DiagnosisLevel::Ok => "ok",
            DiagnosisLevel::Warning => "warning",
            DiagnosisLevel::Harm => "HARM",
        };
        write!(f, "{word:<8} {}: {}", self.subject, self.text)
    }
}

/// Everything that can be found out here and now about a node with this configuration. Takes some seconds, because peers and tunnel
/// targets are asked.
#[must_use]
pub fn examine(config: &Config, root: &Root) -> Vec<Diagnosis> {
    let mut findings = before_start(config, root);
    findings.extend(network::listen(config, root));
    findings.extend(files::state_dir(config));
    findings.extend(network::peers(config));
    findings.extend(network::tunnels(config));
    findings
}

/// What is found without asking anybody and without waiting.
fn before_start(config: &Config, root: &Root) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    if !config.ports.is_empty() {
        findings.extend(drivers::check(&config.ports, &drivers::read(root)));
        findings.extend(ports::check(config, root));
        findings.extend(machine::cores(config, &machine::read_cores(root)));
        findings.extend(machine::memory(config, &machine::read_memory(root)));
    }
    findings.extend(files::certificates(&config.pki, SystemTime::now()));
    findings.extend(files::clock(root));
    findings.extend(kernel::check(config, root));
    findings.extend(offloads::check(config));
    findings
}

/// What would do harm and does not end a router's start by itself, for its log. Must not be called within an async task.
#[must_use]
pub fn at_start(config: &Config, root: &Root) -> Vec<Diagnosis> {
    let mut findings = drivers::check(&config.ports, &drivers::read(root));
    findings.extend(machine::memory(config, &machine::read_memory(root)));
    findings.extend(kernel::port_addresses(config));
    findings.extend(offloads::check(config));
    findings.retain(|finding| finding.level == DiagnosisLevel::Harm);
    findings
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Diagnosis]) -> DiagnosisLevel {
    findings.iter().map(|finding| finding.level).max().unwrap_or(DiagnosisLevel::Ok)
}

#[cfg(test)]
mod tests;
