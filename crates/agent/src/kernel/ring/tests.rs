use super::*;

fn event(kind: u8, before: u8, now: u8) -> [u8; EVENT] {
    let mut event = [0; EVENT];
    event[..16].copy_from_slice(&address_of("192.0.2.10".parse().unwrap()));
    event[16..32].copy_from_slice(&address_of("2001:db8::4".parse().unwrap()));
    event[32..34].copy_from_slice(&80_u16.to_ne_bytes());
    event[34..36].copy_from_slice(&40_000_u16.to_ne_bytes());
    event[36..39].copy_from_slice(&[kind, before, now]);
    event
}

fn became(kind: u8, before: u8, now: u8) -> Became {
    match happening_of(&event(kind, before, now)) {
        Some(Happening::Connection { became, .. }) => became,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_names_both_ends_and_mapped_addresses_are_ipv4() {
    let local = ("192.0.2.10".parse().unwrap(), 80);
    let remote = ("2001:db8::4".parse().unwrap(), 40_000);
    let became = Became::State(TcpState::Established);
    assert_eq!(happening_of(&event(0, 0, 1)), Some(Happening::Connection { local, remote, became }));
    assert_eq!(happening_of(&event(2, 0, 10)), Some(Happening::Listening));
    assert_eq!(happening_of(&[0; EVENT - 1]), None);
}

#[test]
fn only_an_end_the_client_may_not_have_seen_is_unclear() {
    assert_eq!(became(1, 5, 7), Became::Unclear);
    for before in [1, 4, 8, 9, 11] {
        assert_eq!(became(1, before, 7), Became::Gone, "from state {before}");
    }
    assert_eq!(became(1, 1, 8), Became::State(TcpState::CloseWait));
    // TIME-WAIT is no connection.
    assert_eq!(became(1, 11, 6), Became::Gone);
}

#[test]
fn cgroup2_is_found_alone_and_beside_the_older_ones() {
    let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                  cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    assert_eq!(root_among(hybrid), Some("/sys/fs/cgroup/unified".into()));
    assert_eq!(root_among("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup".into()));
    assert_eq!(root_among("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
}
