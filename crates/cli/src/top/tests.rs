//! The screen, drawn without a terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use vipa_model::{Epoch, Incarnation, PortRange, Protocol, Service};
use vipa_protocol::{
    Eligibility,
    admin::{
        Counters, Distribution, DistributionRow, Responsiveness, ServiceDistribution, Stance, Status, VipaDistribution,
        VipaStatus,
    },
};

use super::{
    print,
    sample::Sample,
    screen::{Screen, View, short},
};

fn service() -> Service {
    Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        delivery: Default::default(),
        balance: Default::default(),
        choice: Default::default(),
        orphans: Default::default(),
        sources: Default::default(),
        candidates: vec![],
    }
}

fn row(last: u8, fitness: Eligibility, connections: u64) -> DistributionRow {
    DistributionRow {
        target: [10, 77, 0, last].into(),
        node: Some(format!("t{}", last - 30).parse().unwrap()),
        candidate: true,
        agent: true,
        linked: true,
        listening: 1,
        fit: 1,
        chosen: fitness == Eligibility::Fit,
        fitness,
        weight: 10,
        waiting: 0,
        connections,
        responsiveness: Responsiveness::default(),
    }
}

/// A reading `seconds` after the start, with so many packets.
fn sample(seconds: u64, packets: u64) -> Sample {
    let vipa = |last: u8, owner: Option<&str>, connections| VipaStatus {
        address: [10, 77, 0, last].into(),
        epoch: Epoch(4),
        stance: if owner == Some("r1") { Stance::Active } else { Stance::Standby },
        owner: owner.map(|owner| owner.parse().unwrap()),
        fenced: false,
        ranks: vec![],
        services: vec![service()],
        targets: vec![],
        connections,
        confirmed: connections,
        mirror: None,
        succession: Default::default(),
    };
    let status = Status {
        node: "r1".parse().unwrap(),
        cluster: "demo".into(),
        incarnation: Incarnation(3),
        uptime_ms: seconds * 1_000,
        voters: vec![],
        voters_version: 1,
        other_voters: vec![],
        voters_wait: None,
        links: vec![],
        vipas: vec![vipa(101, None, 7), vipa(100, Some("r1"), 2_000)],
        connections: 2_007,
        capacity: 1_000_000,
        refused: vec![],
        unfit: None,
        left: vec![],
        narrow_paths: vec![],
        over_share: vec![],
        flapping: vec![],
        conflicts: vec![],
        interferences: vec![],
        leases_lost: 0,
        recording: None,
        config_file: None,
        health: Default::default(),
        unconfirmed_ms: None,
    };
    let targets =
        vec![row(31, Eligibility::Fit, 1_500), row(32, Eligibility::NotListening, 500), row(39, Eligibility::Fit, 3)];
    let services = vec![ServiceDistribution { service: service(), targets }];
    let count = |name: &str, value: u64| (name.to_owned(), value);
    Sample {
        status,
        distribution: Distribution {
            vipas: vec![VipaDistribution { vipa: [10, 77, 0, 100].into(), epoch: Epoch(4), services }],
        },
        counters: Counters {
            at_us: seconds * 1_000_000,
            total: [
                count("received", packets),
                count("forwarded", packets / 2),
                count("dropped.no-target", packets / 4),
                count("dropped.group", 5),
                count("dropped.vlan", 0),
            ]
            .into(),
            workers: vec![[count("received", packets), count("dropped.group", 5)].into()],
        },
    }
}

fn screen(view: View) -> Screen {
    let mut screen = Screen::new(view);
    screen.update(sample(10, 1_000));
    screen.update(sample(12, 9_000));
    screen
}

fn press(screen: &mut Screen, code: KeyCode) -> bool {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE)).is_break()
}

fn first_cells(screen: &Screen) -> Vec<String> {
    screen.rows().into_iter().map(|row| row.cells[0].text.clone()).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn all_of_the_first_view_stands_on_eighty_columns_and_twenty_four_lines() {
    let text = print(&mut screen(View::Vipas), 80, 24).unwrap();
    let expected = "\
vipactl top: r1 of demo, up 12 s; 2.0k of 1.0M connections
packets/s: in 4.0k, forwarded 2.0k, answered 0, dropped 1.0k

 1 VIPAs  2 targets  3 drops  4 workers
VIPA            here       owner      epoch targets fit connections▽
10.77.0.100     active     r1             4       0   2       2,000
10.77.0.101     standby    NOBODY         4       0   0           7";
    let shown: Vec<&str> = text.lines().collect();
    assert_eq!(words(&shown[..7].join("\n")), words(expected));
    assert_eq!(shown.len(), 24);
    assert_eq!(shown[23], "F1Help TabView F4Filter F6Order IInvert F10Quit  1 of 2");
}

#[test]
fn every_view_fits_eighty_columns_and_is_drawn_on_a_tiny_terminal_too() {
    for view in View::ALL {
        let wide = print(&mut screen(view), 80, 24).unwrap();
        assert!(wide.lines().all(|line| line.chars().count() <= 80), "{wide}");
        for (columns, lines) in [(20, 5), (1, 1), (300, 100)] {
            print(&mut screen(view), columns, lines).unwrap();
        }
    }
    let drops = print(&mut screen(View::Drops), 80, 24).unwrap();
    assert!(words(&drops).join(" ").contains("dropped.no-target 1,000 2,250 start the application"), "{drops}");
    assert!(!drops.contains("dropped.vlan"), "what was never counted is left out: {drops}");
    let workers = print(&mut screen(View::Workers), 80, 24).unwrap();
    assert!(words(&workers).join(" ").contains("0 4,000 0 0 0 9,000"), "{workers}");
    let targets = print(&mut screen(View::Targets), 80, 24).unwrap();
    assert!(targets.contains("none"), "{targets}");
}

#[test]
fn rows_are_ordered_and_filtered_as_keys_say() {
    let mut screen = screen(View::Targets);
    assert_eq!(first_cells(&screen), ["10.77.0.31", "10.77.0.32", "10.77.0.39"], "most connections first");
    press(&mut screen, KeyCode::Char('I'));
    assert_eq!(first_cells(&screen), ["10.77.0.39", "10.77.0.32", "10.77.0.31"]);
    // From "connections" two further round to the target's address.
    press(&mut screen, KeyCode::F(6));
    press(&mut screen, KeyCode::Char('>'));
    assert_eq!((screen.order(), first_cells(&screen)[0].as_str()), ((0, false), "10.77.0.31"));
    press(&mut screen, KeyCode::Char('<'));
    assert_eq!(screen.order().0, 6);

    press(&mut screen, KeyCode::F(4));
    for character in "LISTENS".chars() {
        press(&mut screen, KeyCode::Char(character));
    }
    assert_eq!(first_cells(&screen), ["10.77.0.32"]);
    assert!(!press(&mut screen, KeyCode::Char('q')), "a letter of the filter ends nothing");
    press(&mut screen, KeyCode::Esc);
    assert_eq!(first_cells(&screen).len(), 3);
}

#[test]
fn keys_go_through_views_rows_and_help_and_end_it() {
    let mut screen = screen(View::Vipas);
    let views: Vec<View> = (0..5)
        .map(|_| {
            press(&mut screen, KeyCode::Tab);
            screen.view
        })
        .collect();
    assert_eq!(views, [View::Targets, View::Drops, View::Workers, View::Vipas, View::Targets]);
    press(&mut screen, KeyCode::Char('3'));
    assert_eq!(screen.view, View::Drops);
    press(&mut screen, KeyCode::End);
    assert_eq!(screen.selected, 1);
    press(&mut screen, KeyCode::Down);
    press(&mut screen, KeyCode::PageDown);
    assert_eq!(screen.selected, 1, "there is no further row");
    press(&mut screen, KeyCode::Home);
    assert_eq!(screen.selected, 0);

    press(&mut screen, KeyCode::F(1));
    assert!(print(&mut screen, 80, 24).unwrap().contains("F6  > <                     order by the next column"));
    assert!(!press(&mut screen, KeyCode::Char('q')), "the first key leaves the help");
    assert!(press(&mut screen, KeyCode::Char('q')));
    assert!(press(&mut screen, KeyCode::F(10)));
    assert!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)).is_break());
}

#[test]
fn a_router_that_does_not_answer_leaves_what_was_known_and_is_named() {
    let mut screen = screen(View::Vipas);
    screen.fail("the router did not answer within 10 s".into());
    let text = print(&mut screen, 80, 24).unwrap();
    assert!(text.contains("NO ANSWER: the router did not answer") && text.contains("10.77.0.100"), "{text}");
    press(&mut screen, KeyCode::Char(' '));
    screen.update(sample(14, 9_000));
    let text = print(&mut screen, 80, 24).unwrap();
    assert!(text.contains("standing still") && text.contains("up 12 s"), "{text}");
}

#[test]
fn numbers_are_short() {
    let texts = [0.0, 0.4, 950.0, 999.6, 1_500.0, 12_340.0, 999_600.0, 3.14e9, 7.2e12].map(short);
    assert_eq!(texts, ["0", "0", "950", "1.0k", "1.5k", "12k", "1.0M", "3.1G", "7.2T"]);
}
