//! `vipactl bundle`: all that a bug report needs is inside, and no secret.

mod support;

use std::{collections::BTreeMap, fs, io::Read, os::unix::fs::PermissionsExt, path::Path};

use support::{serve, status, text, vipactl};
use vipa_protocol::admin::{Answer, Connections, Counters, Decisions, Distribution, Request, Takeovers};

const KEY: &str = "00f1e2d3c4b5a697887766554433221f";
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+q\n-----END PRIVATE KEY-----\n";
const TOKEN: &str = "swordfish-and-more";

/// A router whose answers and files are full of secrets that do not belong there.
fn bundle_of(folder: &Path, recording: &[u8]) -> (std::process::Output, BTreeMap<String, Vec<u8>>) {
    let (config, key, file) = (folder.join("r1.toml"), folder.join("r1.key"), folder.join("events.rec"));
    fs::write(&key, PRIVATE_KEY).unwrap();
    fs::write(&file, recording).unwrap();
    let configuration = format!(
        "# the old key was {KEY}\n[node]\nname = \"r1\"\n[pki]\nkey = {key:?}\n[cluster]\nname = \"demo\"\nkey = \"{KEY}\"\n\
         [hooks]\nowned = [\"/bin/hook\", \"{TOKEN}\"]\n"
    );
    fs::write(&config, configuration).unwrap();
    let socket = serve(folder, move |request| match request {
        Request::Status => {
            let mut status = status(&config, Some(&file));
            status.interferences = vec![format!("{PRIVATE_KEY} and {KEY} and {TOKEN}")];
            Answer::Status(Box::new(status))
        }
        Request::Counters => {
            Answer::Counters(Counters { at_us: 7, total: [("received".into(), 3)].into(), ..Counters::default() })
        }
        Request::Connections { .. } => Answer::Connections(Connections::default()),
        Request::Distribution => Answer::Distribution(Distribution { vipas: vec![] }),
        Request::Takeovers => Answer::Takeovers(Takeovers { records: vec![] }),
        Request::Decisions => Answer::Decisions(Decisions { decisions: vec![] }),
        _ => Answer::Error(format!("not now; the key is {}", KEY.to_uppercase())),
    });
    let archive = folder.join("bundle.tar.gz");
    let output = vipactl(&socket, &["bundle", "-o", archive.to_str().unwrap()]);
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let mut files = BTreeMap::new();
    let mut reader = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&archive).unwrap()));
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    (output, files)
}

#[test]
fn no_secret_is_in_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let (output, files) = bundle_of(folder.path(), b"VIPA an ordinary recording");
    let all = files.values().chain([&output.stdout, &output.stderr]);
    for bytes in all {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        for secret in [KEY, TOKEN, "mc4caqawbqydk2vwbcieij", "private key-----"] {
            assert!(!text.contains(&secret.to_lowercase()), "{secret} in {text}");
        }
    }
    assert_eq!(files["events.rec"], b"VIPA an ordinary recording");
    let configuration = text(&files["configuration.toml"]);
    assert!(configuration.contains("name = \"demo\"") && configuration.contains("r1.key"), "{configuration}");
    for name in [
        "status.json",
        "status.txt",
        "counters.json",
        "counters-1s-later.json",
        "version.txt",
        "kernel.txt",
        "CONTENTS",
    ] {
        assert!(files.contains_key(name), "{name} is inside: {:?}", files.keys());
    }
    let said = text(&output.stdout);
    assert!(said.contains("status.json, ") && said.ends_with("look through it before you give it away\n"), "{said}");
}

#[test]
fn a_recording_with_a_secret_is_left_out_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&KEY[2 * at..2 * at + 2], 16).unwrap()).collect();
    let (output, files) = bundle_of(folder.path(), &[b"VIPA".as_slice(), &raw].concat());
    assert!(!files.contains_key("events.rec"));
    assert_eq!(output.status.code(), Some(5), "something is missing");
    assert!(text(&files["CONTENTS"]).contains("events.rec is NOT inside: it holds a secret\n"));
}

#[test]
fn a_bundle_takes_no_other_files_place() {
    let folder = tempfile::tempdir().unwrap();
    let socket = serve(folder.path(), |_| Answer::Error("not now".into()));
    let archive = folder.path().join("mine.tar.gz");
    fs::write(&archive, "mine").unwrap();
    let output = vipactl(&socket, &["bundle", "-o", archive.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("vipactl: cannot make "), "{output:?}");
    assert_eq!(fs::read_to_string(&archive).unwrap(), "mine");
}
