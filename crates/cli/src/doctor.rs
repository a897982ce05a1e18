//! `vipactl doctor`: whether this machine can do what a configuration asks of it.

use std::{fs, path::Path};

use vipa_doctor::{Diagnosis, DiagnosisLevel, Root};
use vipa_model::config::Config;

/// What there is to print, and the exit status.
pub(crate) fn examine(file: &Path, json: bool) -> anyhow::Result<(String, u8)> {
    let text = fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("cannot read the configuration {}: {error}", file.display()))?;
    let config = Config::parse(&file.display().to_string(), &text)?;
    let findings = vipa_doctor::examine(&config, &Root::default());
    let status = u8::from(vipa_doctor::worst(&findings) == DiagnosisLevel::Harm);
    let text = if json { serde_json::to_string_pretty(&findings)? + "\n" } else { text_of(&findings) };
    Ok((text, status))
}

fn text_of(findings: &[Diagnosis]) -> String {
    let of = |severity| findings.iter().filter(|finding| finding.level == severity).count();
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    format!(
        "{lines}{} checks: {} do harm, {} are warnings\n",
        findings.len(),
        of(DiagnosisLevel::Harm),
        of(DiagnosisLevel::Warning)
    )
}
