//! Any bytes get a verdict, within their bounds, and the same one however they are dressed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vipa_packet::{Body, HeaderSums, HeaderColumns, Parsed, Station, ethernet, fix_checksums, parse, parse_plain};

fuzz_target!(init: vipa_fuzz::plant("parse", vipa_fuzz::frames(&[])), |input: &[u8]| {
    check(input);
    let mut fixed = input.to_vec();
    fix_checksums(&mut fixed);
    check(&fixed);
});

fn check(frame: &[u8]) {
    let verdict = parse(frame);
    if let Some(plain) = parse_plain(frame) {
        assert_eq!(Ok(plain), verdict, "a short way says something else");
    }
    let station = Station::new(&frame.first_chunk().copied().unwrap_or_default());
    let mut columns = HeaderColumns::default();
    columns.load(7, frame);
    columns.load_ipv6(7, frame);
    let is_segment = columns.segments(station, HeaderSums::Unverified).plain >> 7 & 1 != 0;
    let is_segment6 = columns.segments6(station).plain >> 7 & 1 != 0;
    assert!(columns.is_ipv6(7) || !is_segment6);
    let segment6 = is_segment6.then(|| Body::Ipv6Tcp(columns.segment6(7)));
    let shortest = is_segment.then(|| Body::Ipv4Tcp(columns.segment(7))).or(segment6);
    if let Some(segment) = shortest {
        assert_eq!(
            Ok((None, segment)),
            verdict.map(|parsed| (parsed.vlan, parsed.body)),
            "the shortest says something else"
        );
    }
    let Ok(parsed) = verdict else { return };
    let Parsed { l3, l4, end, body, .. } = parsed;
    let end = end as usize;
    assert!(usize::from(l3) <= usize::from(l4) && usize::from(l4) <= end && end <= frame.len(), "{parsed:?}");
    if matches!(body, Body::OtherEtherType(_)) {
        return;
    }
    assert_eq!(parse(&[frame, &[0xaa; 7]].concat()), verdict, "padding is no part of the packet");
    assert_eq!(parse(&frame[..end]), verdict, "nor is what follows it");
    if parsed.vlan.is_none() {
        // No short way knows a tag.
        let tagged = ethernet::tagged(frame, 5);
        let moved = Parsed { vlan: Some(5), l3: l3 + 4, l4: l4 + 4, end: parsed.end + 4, body };
        assert_eq!(parse(&tagged), Ok(moved), "a tag is no part of the packet");
    }
}
