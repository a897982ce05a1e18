use std::{fs, path::PathBuf};

use vipa_model::config::Program;

use super::*;

/// A folder that stands for `/`, with these files.
pub(crate) fn root_with(files: &[(&str, &str)]) -> Root {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    for (path, text) in files {
        let path: PathBuf = folder.join(path);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    Root::at(&folder)
}

pub(crate) fn said(findings: &[Diagnosis]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// A router with these lines in its `[[port]]`.
pub(crate) fn config(port: &str) -> Config {
    config_with(port, "cores = [0]")
}

/// And these in `[workers]`, which other sections may follow.
pub(crate) fn config_with(port: &str, workers: &str) -> Config {
    let text = format!(
        r#"
[node]
name = "r1"
listen = "127.0.0.1:17400"
[pki]
ca = "ca.pem"
certificate = "r1.pem"
key = "r1.key"
[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["r1", "t1", "t2"]
[cluster.routers]
r1 = "127.0.0.1:17400"
[[port]]
name = "p0"
address = "192.0.2.1/24"
{port}
[[vipa]]
address = "192.0.2.10"
ranks = {{ r1 = 200 }}
[[vipa.service]]
ports = 80
candidates = ["192.0.2.31"]
[workers]
{workers}
"#
    );
    Config::parse_for(Program::Router, "/nonexistent/r1.toml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_worst_finding_decides() {
    let [ok, warning, harm] = [Diagnosis::ok("a", "b"), Diagnosis::warning("a", "b"), Diagnosis::harm("a", "b")];
    assert_eq!(worst(&[]), DiagnosisLevel::Ok);
    assert_eq!(worst(&[ok.clone(), warning.clone()]), DiagnosisLevel::Warning);
    assert_eq!(worst(&[warning, harm.clone(), ok]), DiagnosisLevel::Harm);
    assert_eq!(harm.to_string(), "HARM     a: b");
}
