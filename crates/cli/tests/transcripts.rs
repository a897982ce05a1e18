//! What a person sees: `vipactl` run against a router that gives known answers.

#[path = "transcripts/explain.rs"]
mod explanations;
#[path = "transcripts/health.rs"]
mod health;
#[path = "transcripts/status.rs"]
mod status_lines;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::JoinHandle,
};

use vipa_model::{
    Balance, Choice, Connection, Delivery, Epoch, Incarnation, NodeName, Orphans, PortRange, Protocol, Rank, Service,
    Sources,
};
use vipa_protocol::{
    Decision, Eligibility, Load, Matter, Order, Position, Ruling, Stamp, TakeoverReport, Trigger,
    admin::{
        Answer, Audit, AuditExample, AuditMode, AuditResult, Connections, Counters, Decisions, Diff, DiffRow,
        Difference, Distribution, DistributionRow, Drill, DrillTarget, Link, Loss, MirrorStatus, Peer, PeerAnswer,
        Reload, ReloadChange, ReloadMode, ReloadOutcome, Request, Responsiveness, Said, ServiceDistribution, Stage,
        Stance, Status, Succession, TakeoverRecord, Takeovers, TargetAudit, TargetStatus, Versioned, VipaDistribution,
        VipaStatus,
    },
};

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

fn address<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("an address")
}

fn vipactl(arguments: &[&str]) -> Output {
    vipactl_within(arguments, None)
}

/// In a terminal of so many columns.
fn vipactl_within(arguments: &[&str], columns: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipactl"));
    command.env_remove("COLUMNS").envs(columns.map(|columns| ("COLUMNS", columns)));
    command.args(arguments).env_remove("VIPA_SOCKET").output().expect("vipactl runs")
}

fn stdout(output: &Output) -> String {
    said_with(output, 0)
}

/// What is said with this exit status.
fn said_with(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    refused_with(output, 1)
}

fn refused_with(output: &Output, status: i32) -> String {
    assert_eq!((output.status.code(), &*output.stdout), (Some(status), &b""[..]), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Answers one client with `line`; gives what it was asked.
fn router(folder: &Path, line: String) -> (PathBuf, JoinHandle<String>) {
    let path = folder.join("r1.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let router = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut asked = String::new();
        BufReader::new(&client).read_line(&mut asked).expect("a question");
        client.write_all(line.as_bytes()).expect("an answer taken");
        asked
    });
    (path, router)
}

/// Runs `vipactl` with `arguments` against a router that answers `answer` and must have been asked `request`.
fn ask(arguments: &[&str], request: &Request, answer: &Answer) -> Output {
    ask_within(arguments, request, answer, None)
}

fn ask_within(arguments: &[&str], request: &Request, answer: &Answer, columns: Option<&str>) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let line = serde_json::to_string(&Versioned::new(answer)).expect("JSON") + "\n";
    let (socket, router) = router(folder.path(), line);
    let output = vipactl_within(&[&["--socket", socket.to_str().expect("UTF-8")], arguments].concat(), columns);
    let asked: Versioned<Request> = serde_json::from_str(&router.join().expect("the router")).expect("a request");
    assert_eq!(&asked.current().expect("this version"), request);
    output
}

fn web() -> Service {
    Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        delivery: Delivery::default(),
        balance: Balance::Maglev,
        choice: Choice::default(),
        orphans: Orphans::Reset,
        sources: Sources::default(),
        candidates: vec![address("10.77.0.31"), address("10.77.0.32")],
    }
}

fn status() -> Status {
    let target = |last: u8, complete: bool, listening, connections| TargetStatus {
        address: address(&format!("10.77.0.{last}")),
        node: complete.then(|| name(&format!("t{}", last - 30))),
        linked: complete,
        complete,
        position: complete.then_some(Position { incarnation: Incarnation(1), sequence: 1_234 }),
        listening,
        load: complete.then(|| Load { headroom: 12, ..Load::unknown() }),
        connections,
        resting: Vec::new(),
        responsiveness: Responsiveness {
            reached: complete.then_some(100),
            established: complete.then_some(98),
            accepted: complete.then_some(50),
        },
    };
    let vipa = VipaStatus {
        address: address("10.77.0.100"),
        epoch: Epoch(4),
        stance: Stance::Active,
        owner: Some(name("r1")),
        fenced: false,
        ranks: vec![(name("r1"), Rank(200)), (name("r2"), Rank(100))],
        services: vec![web()],
        targets: vec![target(31, true, vec![(Protocol::Tcp, 80)], 2_000), target(32, false, vec![], 0)],
        connections: 2_000,
        confirmed: 1_998,
        mirror: None,
        succession: Succession::default(),
    };
    Status {
        node: name("r1"),
        cluster: "demo".into(),
        incarnation: Incarnation(3),
        uptime_ms: 192_000,
        voters: vec![name("r1"), name("r2"), name("t1")],
        voters_version: 1,
        other_voters: vec![],
        voters_wait: None,
        links: vec![
            Link { node: name("r2"), target: None, up: false },
            Link { node: name("t1"), target: Some(address("10.77.0.31")), up: true },
        ],
        vipas: vec![vipa],
        connections: 2_000,
        capacity: 1_000_000,
        unfit: None,
        left: Vec::new(),
        narrow_paths: Vec::new(),
        over_share: Vec::new(),
        refused: Vec::new(),
        flapping: Vec::new(),
        conflicts: Vec::new(),
        interferences: Vec::new(),
        leases_lost: 0,
        recording: None,
        health: vipa_protocol::HealthFacts::default(),
        config_file: None,
        unconfirmed_ms: None,
    }
}

#[test]
fn an_order_is_waited_for_and_its_progress_goes_to_the_other_stream() {
    let order = Order::Move { vipa: address("10.77.0.100"), to: name("r2") };
    let say = |answer| serde_json::to_string(&Versioned::new(answer)).expect("JSON") + "\n";
    let progress = || Answer::Progress(Said { sentence: "r2 makes itself ready".into() });
    let done = Answer::Done(Said { sentence: "10.77.0.100 is at r2".into() });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (socket, router) = router(folder.path(), say(progress()) + &say(progress()) + &say(done));
    let output = vipactl(&["--socket", socket.to_str().expect("UTF-8"), "vipa", "move", "10.77.0.100", "r2"]);
    let asked: Versioned<Request> = serde_json::from_str(&router.join().expect("the router")).expect("a request");
    assert_eq!(asked.current(), Ok(Request::Order { order }));
    assert_eq!(stdout(&output), "10.77.0.100 is at r2\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "… r2 makes itself ready\n");
}

#[test]
fn orders_are_what_was_said() {
    let done = Answer::Done(Said { sentence: "done".into() });
    let (vipa, target) = (address("10.77.0.100"), address("10.77.0.31"));
    let (protocol, port) = (Protocol::Tcp, 80);
    let said: [(&[&str], Order); 10] = [
        (&["vipa", "deactivate", "10.77.0.100", "--force"], Order::Deactivate { vipa, force: true }),
        (&["vipa", "reactivate", "10.77.0.100"], Order::Reactivate { vipa }),
        (&["vipa", "takeback", "10.77.0.100"], Order::Takeback { vipa }),
        (&["target", "quiesce", "10.77.0.31"], Order::QuiesceTarget { target }),
        (&["target", "resume", "10.77.0.31"], Order::ResumeTarget { target }),
        (&["service", "quiesce", "10.77.0.100:80/tcp"], Order::QuiesceService { vipa, protocol, port, target: None }),
        (
            &["service", "resume", "10.77.0.100:80", "10.77.0.31"],
            Order::ResumeService { vipa, protocol, port, target: Some(target) },
        ),
        (&["node", "leave"], Order::Leave { node: None, force: false }),
        (&["node", "leave", "t1"], Order::Leave { node: Some(name("t1")), force: false }),
        (&["node", "join", "t1"], Order::Join { node: Some(name("t1")) }),
    ];
    for (arguments, order) in said {
        let shown = order.to_string();
        assert_eq!(stdout(&ask(arguments, &Request::Order { order }, &done)), "done\n", "{shown}");
    }
    let refused = Answer::Error("r9 has no rank for 10.77.0.100; it can be moved to r1, r2".into());
    let order = Order::Move { vipa, to: name("r9") };
    let output = ask(&["vipa", "move", "10.77.0.100", "r9"], &Request::Order { order }, &refused);
    let expected = "vipactl: the router says: r9 has no rank for 10.77.0.100; it can be moved to r1, r2\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn what_is_decided_is_a_line_each() {
    let decided = |matter, ruling| Decision { matter, ruling, stamp: Stamp { count: 1, by: name("r1") }, given: None };
    let (vipa, target) = (address("10.77.0.100"), address("10.77.0.31"));
    let service = Matter::Service { vipa, protocol: Protocol::Tcp, port: 80, target: Some(target) };
    let decisions = vec![
        decided(Matter::Place { vipa }, Ruling::At(name("r2"))),
        decided(Matter::Ownership { vipa, router: name("r1") }, Ruling::Withheld),
        decided(Matter::Membership { node: name("t3") }, Ruling::Withheld),
        decided(Matter::Target { target }, Ruling::Withheld),
        decided(service, Ruling::Withheld),
    ];
    let shown = stdout(&ask(&["decisions"], &Request::Decisions, &Answer::Decisions(Decisions { decisions })));
    let expected = "\
10.77.0.100 is moved to r2; decided by way of r1
10.77.0.100 on r1 is deactivated; decided by way of r1
t3 has left; decided by way of r1
target 10.77.0.31 is quiesced; decided by way of r1
service 10.77.0.100:80/tcp at 10.77.0.31 is quiesced; decided by way of r1
";
    assert_eq!(shown, expected);
}

#[test]
fn status_shows_a_router_at_a_glance() {
    let output = ask(&["status"], &Request::Status, &Answer::Status(Box::new(status())));
    let expected = "\
WARNING: 2 of 3 voters are reached; missing: r2 (and 1 more; `vipactl health`)
router r1 of cluster demo, up 3 min 12 s; voters r1, r2, t1
connection table: 2,000 of 1,000,000

VIPA 10.77.0.100: active
  epoch 4, owner r1, this router; ranks r1 200, r2 100
  services tcp/80; connections 2,000, confirmed 1,998
  target      node  link  log      listening  headroom        connections  serves
  10.77.0.31  t1    up    at 1234  tcp/80     12/16, cpu 0 %        2,000  49 %: 100 % reached, 98 % established, 50 % accepted
  10.77.0.32  -     down  unknown  -          -                         0  -

links
  node  role               link
  r2    router             down
  t1    target 10.77.0.31  up
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_fenced_owner_and_a_backup_that_knows_nothing_say_so() {
    let mut fenced = status();
    fenced.vipas[0].fenced = true;
    let text = stdout(&ask(&["status"], &Request::Status, &Answer::Status(Box::new(fenced))));
    assert!(text.contains("VIPA 10.77.0.100: active, FENCED: its lease has run out\n"), "{text}");

    let mut backup = status();
    backup.vipas[0] = VipaStatus {
        stance: Stance::Standby,
        owner: None,
        services: vec![],
        targets: vec![],
        ..backup.vipas[0].clone()
    };
    let text = stdout(&ask(&["status"], &Request::Status, &Answer::Status(Box::new(backup))));
    assert!(text.contains("VIPA 10.77.0.100: standby\n  epoch 4, owner nobody;"), "{text}");
    assert!(text.contains("  services none known yet;"), "{text}");
}

#[test]
fn json_is_the_answer_itself_on_one_line() {
    for arguments in [["--json", "status"], ["status", "--json"]] {
        let text = stdout(&ask(&arguments, &Request::Status, &Answer::Status(Box::new(status()))));
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
    }
}

#[test]
fn distribution_shows_who_gets_new_connections_and_why_not() {
    let row = |last: u8, fitness: Eligibility, chosen, connections| DistributionRow {
        target: address(&format!("10.77.0.{last}")),
        node: Some(name(&format!("t{}", last - 30))),
        candidate: fitness != Eligibility::NotCandidate,
        agent: last != 36,
        linked: last != 36,
        listening: u32::from(fitness != Eligibility::NotListening),
        fit: u32::from(fitness == Eligibility::Fit),
        chosen,
        weight: 1,
        waiting: if let Eligibility::NotAccepting { waiting } = fitness { waiting } else { 0 },
        fitness,
        connections,
        responsiveness: Responsiveness { established: (last == 31).then_some(98), ..Responsiveness::default() },
    };
    let failing = Eligibility::CheckFailing { check: "web".into(), detail: "status 500".into() };
    let targets = vec![
        row(31, Eligibility::Fit, true, 1_500),
        row(32, Eligibility::NotListening, false, 0),
        row(33, Eligibility::NotCandidate, false, 500),
        row(34, failing, false, 0),
        row(35, Eligibility::NotAccepting { waiting: 12 }, false, 0),
        row(36, Eligibility::NotAccepting { waiting: 3 }, true, 0),
    ];
    let services = vec![ServiceDistribution { service: web(), targets }];
    let vipas = vec![VipaDistribution { vipa: address("10.77.0.100"), epoch: Epoch(4), services }];
    let answer = Answer::Distribution(Distribution { vipas });
    let expected = "\
VIPA 10.77.0.100, epoch 4
  tcp/80: balanced by maglev, orphans reset
    target      node  link  weight  serves  waiting  connections   share  new connections
    10.77.0.31  t1    up         1    98 %        0        1,500  75.0 %  yes
    10.77.0.32  t2    up         1       -        0            0   0.0 %  no, nothing listens
    10.77.0.33  t3    up         1       -        0          500  25.0 %  no, not a candidate
    10.77.0.34  t4    up         1       -        0            0   0.0 %  no, its check \"web\" fails: status 500
    10.77.0.35  t5    up         1       -       12            0   0.0 %  no, its server accepts none of 12 waiting
    10.77.0.36  t6    none       1       -        3            0   0.0 %  yes, for want of a better: its server accepts none of 3 waiting
";
    assert_eq!(stdout(&ask(&["distribution"], &Request::Distribution, &answer)), expected);
}

#[test]
fn takeovers_are_reports_a_person_can_read() {
    let report = TakeoverReport {
        vipa: address("10.77.0.100"),
        epoch: Epoch(5),
        trigger: Trigger::Failure,
        cause: vipa_protocol::OwnershipCause::Silent { ms: 300 },
        predecessor: Some(name("r1")),
        detect_us: 65_210,
        collect_us: 1_390,
        rebuild_us: 12_000,
        targets_answered: 3,
        targets_expected: 3,
        targets_warm: 3,
        connections_reported: 4,
    };
    let record = TakeoverRecord {
        report,
        finished_unix_ms: 1_709_210_096_789,
        announce_us: 200,
        first_forward_us: Some(3_100),
        connections_known_before: 1_996,
        connections_rebuilt: 4,
        unowned_ms: None,
        unowned_frames: None,
        held: 7,
        released: 7,
        expired: 0,
    };
    let answer = Answer::Takeovers(Takeovers { records: vec![record.clone()] });
    let expected = "\
2024-02-29T12:34:56.789Z  VIPA 10.77.0.100, epoch 5  failure: taken over from r1
  cause        its owner was silent for 300 ms
  time         detect 65.2 ms, collect 1.3 ms, announce 0.2 ms, rebuild 12.0 ms; first packet forwarded after 3.1 ms
  targets      3 of 3 answered, 3 with the tail of their log only
  connections  1,996 known before, 4 reported, 4 rebuilt
  packets      7 held, 7 released, 0 given up
";
    assert_eq!(stdout(&ask(&["takeovers"], &Request::Takeovers, &answer)), expected);

    for (unowned_frames, words) in
        [(Some(2_345), "2,345 frames came to its ports meanwhile"), (None, "its ports cannot tell what came meanwhile")]
    {
        let alone = TakeoverRecord { unowned_ms: Some(1_812), unowned_frames, ..record.clone() };
        let answer = Answer::Takeovers(Takeovers { records: vec![alone] });
        let text = stdout(&ask(&["takeovers"], &Request::Takeovers, &answer));
        let gap = format!("  gap          nobody owned it for 1812.0 ms, since this router last stopped; {words}\n");
        assert!(text.contains(&gap), "{text}");
    }

    let none = Answer::Takeovers(Takeovers { records: vec![] });
    let text = stdout(&ask(&["takeovers"], &Request::Takeovers, &none));
    assert_eq!(text, "this router has taken nothing over yet\n");
}

#[test]
fn counters_are_a_table_with_a_column_for_each_of_several_workers() {
    let counters = |value| [("forward".to_owned(), value), ("received".to_owned(), value * 2)].into();
    let one = Answer::Counters(Counters { at_us: 7, total: counters(5_000), workers: vec![counters(5_000)] });
    let expected = "\
counter    total
forward    5,000
received  10,000
";
    assert_eq!(stdout(&ask(&["counters"], &Request::Counters, &one)), expected);

    let two = Answer::Counters(Counters { at_us: 7, total: counters(30), workers: vec![counters(10), counters(20)] });
    let expected = "\
counter   total  worker 0  worker 1
forward      30        10        20
received     60        20        40
";
    assert_eq!(stdout(&ask(&["counters"], &Request::Counters, &two)), expected);
}

#[test]
fn a_reload_shows_what_changes_and_what_became_of_it() {
    let change = |what: &str, from: &str, to: &str, needs_restart| ReloadChange {
        what: what.into(),
        from: from.into(),
        to: to.into(),
        needs_restart,
    };
    let candidates = change("vipa 10.77.0.100: tcp/80 candidates", "not there", "10.77.0.34", false);
    let table = change("table.connections", "1000000", "2000000", true);
    let answer = |changes, outcome| {
        Answer::Reload(Reload { file: "/etc/vipa/r1.toml".into(), changes, outcome, confirm_within_ms: None })
    };
    let rehearsed = answer(vec![candidates.clone()], ReloadOutcome::Rehearsed);
    let output =
        ask(&["reload", "--dry-run"], &Request::Reload { mode: ReloadMode::DryRun, confirm_ms: None }, &rehearsed);
    let expected = "\
changes                              from       to
vipa 10.77.0.100: tcp/80 candidates  not there  10.77.0.34

nothing was changed; `vipactl reload` applies it
";
    assert_eq!(stdout(&output), expected);

    let refused = answer(vec![table, candidates], ReloadOutcome::NeedsRestart);
    let output = ask(&["reload"], &Request::Reload { mode: ReloadMode::Whole, confirm_ms: None }, &refused);
    let text = said_with(&output, 5);
    assert!(text.contains("table.connections                    1000000    2000000     needs a restart\n"), "{text}");
    assert!(text.ends_with("`vipactl reload --live` applies the rest\n"), "{text}");

    let unchanged = answer(vec![], ReloadOutcome::Unchanged);
    let output = ask(&["reload", "--live"], &Request::Reload { mode: ReloadMode::Live, confirm_ms: None }, &unchanged);
    assert_eq!(said_with(&output, 5), "/etc/vipa/r1.toml says what the router does already\n");

    let mistake = Answer::Error("nothing was changed:\n/etc/vipa/r1.toml:27:11: unknown key `adress`".into());
    let output = ask(&["reload"], &Request::Reload { mode: ReloadMode::Whole, confirm_ms: None }, &mistake);
    assert!(stderr(&output).ends_with("nothing was changed:\n/etc/vipa/r1.toml:27:11: unknown key `adress`\n"));
}

#[test]
fn an_audit_says_of_each_target_whether_the_table_agrees() {
    let of = |last: u8, result| TargetAudit {
        vipa: address("10.77.0.100"),
        target: address(&format!("10.77.0.{last}")),
        node: name(&format!("t{}", last - 30)),
        result,
    };
    let connection =
        |port: u16| Connection { protocol: Protocol::Tcp, client: address(&format!("10.77.0.50:{port}")), port: 80 };
    let differs = |repaired| AuditResult::Differs {
        connections: 1_500,
        differences: vec![(Difference::Missing, 12), (Difference::Stale, 1)],
        examples: vec![
            AuditExample { connection: connection(40_000), difference: Difference::Missing },
            AuditExample { connection: connection(40_001), difference: Difference::Stale },
        ],
        parts_left: 0,
        repaired,
    };
    let targets = |repaired| {
        let agrees = AuditResult::Agrees { connections: 2_000 };
        vec![of(31, agrees), of(32, differs(repaired)), of(33, AuditResult::NoAnswer)]
    };
    let request = Request::Audit { vipa: None, mode: AuditMode::Look };
    let output = ask(&["audit"], &request, &Answer::Audit(Audit { targets: targets(false) }));
    let expected = "\
vipa         target      node  the table
10.77.0.100  10.77.0.31  t1    agrees on all 2,000 connections
10.77.0.100  10.77.0.32  t2    differs: 12 missing, 1 stale of 1,500; --repair puts it right
10.77.0.100  10.77.0.33  t3    could not be compared: no answer
  t2: 10.77.0.50:40000 to tcp/80: the target holds it, the table does not know it
  t2: 10.77.0.50:40001 to tcp/80: the table has it, the target does not
";
    assert_eq!(said_with(&output, 5), expected);

    let request = Request::Audit { vipa: Some(address("10.77.0.100")), mode: AuditMode::Repair };
    let output = ask(&["audit", "10.77.0.100", "--repair"], &request, &Answer::Audit(Audit { targets: targets(true) }));
    assert!(said_with(&output, 5).contains("12 missing, 1 stale of 1,500; repaired\n"), "{output:?}");
}

fn drill() -> Drill {
    let target = |last: u8, linked: bool| DrillTarget {
        address: address(&format!("10.77.0.{last}")),
        node: Some(name(&format!("t{}", last - 30))),
        candidate: true,
        linked,
        reached: true,
        listening: if linked { vec![(Protocol::Tcp, 80)] } else { vec![] },
        known: 1_000,
        held: linked.then_some(1_001),
        others: if linked { 7 } else { 0 },
        behind: linked.then_some(1),
        answer_us: linked.then_some(1_200),
    };
    Drill {
        vipa: address("10.77.0.100"),
        owner: Some(name("r1")),
        owned_here: false,
        before: vec![],
        voters: 3,
        voters_linked: 3,
        detect_us: 110_000,
        collect_us: 2_400,
        rebuild_us: 1_200,
        connections: 2_007,
        targets: vec![target(31, true), target(32, false)],
        losses: vec![Loss {
            target: address("10.77.0.32"),
            connections: None,
            why: "its agent is not linked: what it holds beyond the connections known here would be unknown".into(),
        }],
        unserved: vec![],
    }
}

#[test]
fn a_drill_says_what_a_takeover_would_have_take_and_lose() {
    let request = Request::Drill { vipa: address("10.77.0.100") };
    let output = ask(&["drill", "10.77.0.100"], &request, &Answer::Drill(drill()));
    let expected = "\
VIPA 10.77.0.100, owned by r1; were its owner to fail now:
  order        this router would be the next owner
  voters       3 of 3 reachable, a majority
  time         about 113.6 ms: detect 110.0 ms, collect 2.4 ms, rebuild 1.2 ms
  connections  2,007 in the table
  target      node  link  packets   listening  known   held  others  behind  answer
  10.77.0.31  t1    up    reach it  tcp/80     1,000  1,001       7       1  1.2 ms
  10.77.0.32  t2    down  reach it  -          1,000      -       0       -       -
  lost         an unknown number at 10.77.0.32: its agent is not linked: what it holds beyond the connections known here would be unknown
";
    assert_eq!(said_with(&output, 5), expected);

    let well = Drill { losses: vec![], voters_linked: 1, before: vec![name("r3")], unserved: vec![web()], ..drill() };
    let text = said_with(&ask(&["drill", "10.77.0.100"], &request, &Answer::Drill(well)), 5);
    for line in [
        "  order        after r3\n",
        "  voters       1 of 3 reachable, NO MAJORITY: it could not be granted\n",
        "  unserved     tcp/80: no reachable target listens\n",
        "  lost         nothing\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }

    let owner = |before| Drill { owned_here: true, losses: vec![], before, ..drill() };
    let alone = ask(&["drill", "10.77.0.100"], &request, &Answer::Drill(owner(vec![])));
    let text = said_with(&alone, 5);
    assert!(
        text.contains("NO OTHER that may own it is linked") && text.ends_with("  lost         everything\n"),
        "{text}"
    );
    let followed = ask(&["drill", "10.77.0.100"], &request, &Answer::Drill(owner(vec![name("r2")])));
    let text = stdout(&followed);
    assert!(text.contains("the owner; after it r2: ask there") && text.ends_with("  lost         nothing\n"), "{text}");
}

#[test]
fn a_diff_shows_only_what_differs_and_who_could_not_be_asked() {
    let row =
        |what: &str, here: &str, there: &str| DiffRow { what: what.into(), here: here.into(), there: there.into() };
    let rows =
        vec![row("cluster.lease_ms", "100", "200"), row("tcp/80 candidates", "10.77.0.31 10.77.0.32", "10.77.0.31")];
    let peer = |node: &str, answer| Peer { node: name(node), answer };
    let peers = vec![
        peer("r2", PeerAnswer::Differs(rows)),
        peer("r3", PeerAnswer::Differs(vec![])),
        peer("r4", PeerAnswer::Silent),
        peer("r5", PeerAnswer::NotConfigured),
    ];
    let request = Request::Diff { vipa: address("10.77.0.100") };
    let output = ask(&["diff", "10.77.0.100"], &request, &Answer::Diff(Diff { vipa: address("10.77.0.100"), peers }));
    let expected = "\
VIPA 10.77.0.100: r2 differs
  what               here                   r2
  cluster.lease_ms   100                    200
  tcp/80 candidates  10.77.0.31 10.77.0.32  10.77.0.31
VIPA 10.77.0.100: r3 is configured as this router is
VIPA 10.77.0.100: r4 is not linked or does not answer
VIPA 10.77.0.100: r5 has no [[vipa]] for it
";
    assert_eq!(said_with(&output, 5), expected);
}

#[test]
fn what_goes_wrong_is_one_sentence_with_the_remedy() {
    let refused = ask(&["status"], &Request::Status, &Answer::Error("vipad is stopping".into()));
    assert_eq!(stderr(&refused), "vipactl: the router says: vipad is stopping\n");

    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody.sock");
    let text = refused_with(&vipactl(&["--socket", nobody.to_str().unwrap(), "status"]), 4);
    assert!(text.starts_with("vipactl: cannot reach a router at ") && text.contains("does vipad run there"), "{text}");

    let (socket, router) = router(folder.path(), "{\"version\":4,\"answer\":\"error\",\"data\":\"new\"}\n".into());
    let text = stderr(&vipactl(&["--socket", socket.to_str().unwrap(), "status"]));
    router.join().unwrap();
    assert!(text.contains("version 4") && text.contains("install the same release"), "{text}");
}

#[test]
fn certificates_are_made_by_two_commands() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let dir_text = dir.to_str().unwrap();
    let text = stdout(&vipactl(&["pki", "init", "--dir", dir_text]));
    let expected = format!(
        "{dir_text}/ca.pem: the cluster's authority; goes to every node\n\
         {dir_text}/ca.key: its key; signs certificates, goes to no node\n\
         Next: vipactl pki issue NODE --router --dir {dir_text}, and for each target NODE --target ADDRESS --dir {dir_text}\n"
    );
    assert_eq!(text, expected);
    let text = stdout(&vipactl(&["pki", "issue", "r1", "--router", "--dir", dir_text]));
    let expected = format!(
        "{dir_text}/r1.pem: r1's certificate, as a router\n{dir_text}/r1.key: its key; both go to r1, with ca.pem\n"
    );
    assert_eq!(text, expected);
    let text = stdout(&vipactl(&["pki", "issue", "t1", "--target", "10.0.0.31,fd00::31", "--dir", dir_text]));
    assert!(text.contains("t1's certificate, as the target 10.0.0.31, the target fd00::31"), "{text}");
    let mut files: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["ca.key", "ca.pem", "r1.key", "r1.pem", "t1.key", "t1.pem"]);
    let text = stdout(&vipactl(&["pki", "client", "alice", "--dir", dir_text]));
    assert!(text.contains("alice.key: its key; both go to alice, with ca.pem\nNext: name alice in [api]"), "{text}");
    let again = stderr(&vipactl(&["pki", "issue", "r1", "--router", "--dir", dir_text]));
    assert!(again.contains("exists already; remove it first"), "{again}");
    let elsewhere = folder.path().join("none");
    let text = stderr(&vipactl(&["pki", "issue", "r1", "--router", "--dir", elsewhere.to_str().unwrap()]));
    assert!(text.contains("`vipactl pki init` makes the authority"), "{text}");
    let mistakes: [(&[&str], &str); 3] = [
        (&["R1", "--router"], "is not a node name"),
        (&["r2"], "<--router|--target <ADDRESS>|--renew>"),
        (&["t2", "--target", "t2"], "invalid IP address syntax"),
    ];
    for (arguments, mistake) in mistakes {
        let wrong = vipactl(&[&["pki", "issue"], arguments, &["--dir", dir_text]].concat());
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert_eq!(wrong.status.code(), Some(2));
        assert!(said.contains(mistake), "{said}");
    }
}

#[test]
fn help_teaches() {
    let text = stdout(&vipactl(&["--help"]));
    for lesson in [
        "Examples:",
        "vipactl pki init --dir pki",
        "vipactl status",
        "--socket",
        "--json",
        "/run/vipad/NAME/admin.sock",
    ] {
        assert!(text.contains(lesson), "{lesson:?} is not in\n{text}");
    }
}
