//! `vipactl counters` with rates and meanings.

mod support;

use std::{collections::BTreeMap, path::Path};

use support::{serve, text, vipactl};
use vipa_protocol::admin::{Answer, Counters, Request};

/// A router that has counted so much more each time it is asked, a second of its own clock later.
fn counting(folder: &Path) -> std::path::PathBuf {
    let mut asked = 0;
    serve(folder, move |request| {
        assert_eq!(request, Request::Counters);
        asked += 1;
        let count = |each: u64, first: u64| first + each * asked;
        let total: BTreeMap<String, u64> = [
            ("received", count(2_500, 0)),
            ("forwarded", count(2_490, 0)),
            ("dropped.no-target", count(10, 0)),
            ("dropped.group", count(0, 5)),
            ("dropped.vlan", 0),
            ("holding", 3),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        Answer::Counters(Counters { at_us: asked * 1_000_000, workers: vec![total.clone()], total })
    })
}

fn shown(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = counting(folder.path());
    let output = vipactl(&socket, arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

#[test]
fn rates_are_those_of_the_routers_clock_however_long_the_reader_waits() {
    let expected = "\
counter            total  a second
dropped.group          5         0
dropped.no-target     20        10
dropped.vlan           0         0
forwarded          4,980     2,490
holding                3         -
received           5,000     2,500
";
    assert_eq!(shown(&["counters", "--rate", "20ms"]), expected);
    let expected = "\
counter            total  a second
dropped.no-target     20        10
forwarded          4,980     2,490
received           5,000     2,500
";
    assert_eq!(shown(&["counters", "--rate", "20ms", "--nonzero"]), expected);
}

#[test]
fn what_counts_is_explained_in_lines_that_fit() {
    let text = shown(&["counters", "--nonzero", "--why"]);
    let part = "\
dropped.no-target     10
    new connections of a service of which no candidate listens
    what to do: start the application; see vipactl distribution
";
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("dropped.vlan"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn rates_are_one_document() {
    let text = shown(&["counters", "--rate", "20ms", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["rates"]["over_ms"], 1_000.0);
    assert_eq!(value["rates"]["total"]["dropped.no-target"], 10.0);
    assert_eq!(value["rates"]["workers"][0]["received"], 2_500.0);
    assert_eq!(value["counters"]["total"]["received"], 5_000);
}

#[test]
fn a_time_that_is_none_is_refused() {
    for wrong in ["soon", "0s", "2d"] {
        let output = vipactl(Path::new("/nowhere"), &["counters", "--rate", wrong]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
