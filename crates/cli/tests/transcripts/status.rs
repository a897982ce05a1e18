//! What `vipactl status` says beside its tables.

use vipa_protocol::admin::{AddressConflict, NarrowPath, OverShare};

use super::*;

#[test]
fn status_tells_what_bends_the_order_of_succession() {
    let mut status = status();
    status.left = vec![name("t3")];
    status.narrow_paths = vec![NarrowPath { target: address("10.77.0.32"), mtu: 1_400, kept_s: 590 }];
    status.over_share = vec![OverShare { target: address("10.77.0.33"), refused: 140_000 }];
    status.conflicts = vec![AddressConflict {
        vipa: address("10.77.0.100"),
        mac: "02:56:49:50:41:09".into(),
        port: "p0".into(),
        also: Some(address("10.77.0.33")),
        claims: 5,
        ago_s: 3,
    }];
    let kernel = "this host's kernel forwards what comes to eth0 a second time: set net.ipv4.conf.eth0.forwarding to 0";
    status.interferences = vec![kernel.into()];
    status.recording = Some("/var/lib/vipa/events.rec".into());
    status.vipas[0].succession = Succession {
        group: Some("web".into()),
        placed: Some(name("r2")),
        barred: vec![name("r1")],
        takeback: Some("takeback_delay_s".into()),
        takeback_in_ms: Some(61_000),
        ..Succession::default()
    };
    status.vipas[0].targets[0].resting = vec![(Protocol::Tcp, 80)];
    let shown = stdout(&ask(&["status"], &Request::Status, &Answer::Status(Box::new(status))));
    assert!(shown.contains("OVER SHARE: 10.77.0.33 reports more connections"), "{shown}");
    assert!(shown.contains("left: t3; `vipactl node join` takes them in again\n"), "{shown}");
    assert!(
        shown.contains(
            "NARROW PATH: the tunnel to 10.77.0.32 has 1400 bytes for a packet and its headers, tried anew in 9"
        ),
        "{shown}"
    );
    let line = "ADDRESS CONFLICT: station 02:56:49:50:41:09 on port p0, which is 10.77.0.33 as well, says that it has 10.77.0.100 \
                (heard 5 times, last 3 s ago); take the address away there\n";
    assert!(shown.contains(line), "{shown}");
    assert!(shown.contains(&format!("KERNEL: {kernel}\n")), "{shown}");
    assert!(shown.contains("recording to /var/lib/vipa/events.rec, until `vipactl record stop`\n"), "{shown}");
    let line = "  group web; moved to r2; not at r1; takes it back in 1 min 1 s\n";
    assert!(shown.contains(line), "{shown}");
    assert!(shown.contains(", quiesced  "), "{shown}");
}

#[test]
fn the_lag_of_what_no_target_reports_is_shown_at_both_ends() {
    let mut of = status();
    let mut shown = |mirror| {
        of.vipas[0].mirror = Some(mirror);
        stdout(&ask(&["status"], &Request::Status, &Answer::Status(Box::new(of.clone()))))
    };
    let telling =
        |left_out| MirrorStatus::Telling { followers: vec![name("r2"), name("r3")], connections: 1_200, left_out };
    let text = shown(telling(0));
    assert!(text.contains("\n  replicated: 1,200 connections, told to r2, r3\n"), "{text}");
    let text = shown(telling(3_000));
    assert!(
        text.contains("\n  replicated: 1,200 connections, told to r2, r3; 3,000 UDP flows are too many to tell\n"),
        "{text}"
    );
    let following = |behind_ms| MirrorStatus::Following { from: name("r1"), connections: 1_200, behind_ms };
    let text = shown(following(Some(205)));
    assert!(text.contains("\n  replicated: 1,200 connections, told by r1, at most 205 ms behind\n"), "{text}");
    let text = shown(following(None));
    assert!(text.contains("\n  replicated: not yet told by r1\n"), "{text}");
}
