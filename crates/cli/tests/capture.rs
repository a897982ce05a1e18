//! `vipactl capture` against a router that has packets, and what tshark reads of the file.

mod support;

use std::{path::Path, process::Command};

use support::{serve, text, vipactl};
use vipa_protocol::admin::{Answer, CaptureFilter, Captured, CapturedPacket, Request, Said};

/// A SYN to 192.0.2.10:80 of 60 bytes, as it came and as it left.
fn packet(n: u64, is_outgoing: bool, fate: &str) -> CapturedPacket {
    let macs = if is_outgoing { "020000000100020000000002" } else { "020000000002020000000001" };
    let ip = "4500002800004000400600 00cb710004c000020a".replace(' ', "");
    let tcp = "9c40005000000001000000005002ffff00000000";
    CapturedPacket {
        unix_ns: 1_700_000_000_000_000_000 + n * 1_000_000,
        port: if is_outgoing { "p1" } else { "p0" }.into(),
        is_outgoing,
        fate: fate.into(),
        length: 60,
        frame: format!("{macs}0800{ip}{tcp}{}", "00".repeat(6)),
    }
}

fn captured(folder: &Path, arguments: &[&str]) -> (std::process::Output, std::path::PathBuf) {
    let mut reads = 0;
    let socket = serve(folder, move |request| match request {
        Request::CaptureStart { filter } => {
            let vipa = Some("192.0.2.10".parse().unwrap());
            assert_eq!(filter, CaptureFilter { vipa, fates: "dropped.*,forwarded".into(), limit: 100, seconds: 3 });
            Answer::Done(Said { sentence: "the capture begins".into() })
        }
        Request::CaptureRead => {
            reads += 1;
            let packets = match reads {
                1 => vec![packet(1, false, "forwarded"), packet(1, true, "forwarded")],
                3 => vec![packet(2, false, "dropped.no-target")],
                _ => vec![],
            };
            Answer::Captured(Captured { packets, is_over: reads == 4, lost: 7 })
        }
        other => Answer::Error(format!("not asked here: {other:?}")),
    });
    let file = folder.join("x.pcapng");
    let output = vipactl(&socket, &[&["capture", "-w", file.to_str().unwrap()], arguments].concat());
    (output, file)
}

const ARGUMENTS: [&str; 8] =
    ["--vipa", "192.0.2.10", "--fate", "dropped.*,forwarded", "--limit", "100", "--seconds", "3"];

#[test]
fn a_capture_is_written_as_it_comes_and_says_what_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (output, file) = captured(folder.path(), &ARGUMENTS);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = "3 packets, in and out, each with its fate as its comment; 7 more came faster than they could be read\n";
    assert_eq!(text(&output.stdout), said);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert_eq!(String::from_utf8_lossy(&bytes).matches("forwarded").count(), 2);
}

/// Needs tshark: `make test-capture`.
#[test]
#[ignore = "needs tshark"]
fn tshark_reads_packets_directions_ports_and_fates() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = captured(folder.path(), &ARGUMENTS);
    let fields = [
        "frame.comment",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "ip.dst",
        "tcp.dstport",
        "frame.time_epoch",
        "frame.len",
    ];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-T", "fields", "-E", "separator=|", "-r"]).arg(&file);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let read = tshark.output().expect("tshark runs");
    assert!(read.status.success(), "{read:?}");
    let lines: Vec<String> = text(&read.stdout).lines().map(str::to_owned).collect();
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows.len(), 3, "{lines:?}");
    for (row, (comment, port, direction)) in
        rows.iter().zip([("forwarded", "p0", 1), ("forwarded", "p1", 2), ("dropped.no-target", "p0", 1)])
    {
        assert_eq!((row[0], row[1]), (comment, port), "{lines:?}");
        let told = row[2].trim_start_matches("0x").trim_start_matches('0');
        assert_eq!(told, direction.to_string(), "{lines:?}");
        assert_eq!((row[3], row[4], row[6]), ("192.0.2.10", "80", "60"), "{lines:?}");
    }
    assert!(rows[0][5].starts_with("1700000000.001"), "{lines:?}");
}

#[test]
fn what_a_capture_may_not_be_is_refused_before_the_router_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [["--limit", "0"], ["--seconds", "3601"], ["--limit", "1000001"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_vipactl"))
            .args(["capture", "-w"])
            .arg(folder.path().join("x.pcapng"))
            .args(wrong)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
