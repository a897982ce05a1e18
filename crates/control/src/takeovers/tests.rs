use std::net::Ipv4Addr;

use vipa_model::Epoch;
use vipa_protocol::Trigger;

use super::*;

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("vipa-takeovers-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn report(epoch: u64) -> TakeoverReport {
    TakeoverReport {
        vipa: VIPA,
        epoch: Epoch(epoch),
        trigger: Trigger::Failure,
        predecessor: None,
        detect_us: 1,
        collect_us: 2,
        rebuild_us: 3,
        targets_answered: 2,
        targets_expected: 3,
        targets_warm: 1,
        connections_reported: 7,
    }
}

fn take_over(takeovers: &mut Takeovers, epoch: u64) {
    takeovers.begin(VIPA, 5, (Totals::default(), &Arrived::new()), Moment::ZERO);
    takeovers.finish(report(epoch), &Totals::default(), Moment(1_000)).unwrap();
    takeovers.write();
}

fn epochs(takeovers: &Takeovers) -> Vec<u64> {
    takeovers.records().iter().map(|record| record.report.epoch.0).collect()
}

#[tokio::test]
async fn reports_are_there_after_a_restart_and_only_the_newest_are_kept() {
    let folder = folder("restart");
    let mut first = Takeovers::open(&folder);
    (1..=10).for_each(|epoch| take_over(&mut first, epoch));
    let before = first.records();
    first.close().await;
    let mut second = Takeovers::open(&folder);
    assert_eq!(second.records(), before);
    (11..=300).for_each(|epoch| take_over(&mut second, epoch));
    second.close().await;
    let third = Takeovers::open(&folder);
    assert_eq!(epochs(&third), (300 - KEPT as u64 + 1..=300).collect::<Vec<_>>());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_damaged_file_costs_its_reports_and_nothing_else() {
    let folder = folder("damaged");
    std::fs::write(folder.join(FILE), "[{").unwrap();
    let mut takeovers = Takeovers::open(&folder);
    assert!(takeovers.records().is_empty());
    take_over(&mut takeovers, 3);
    takeovers.close().await;
    assert_eq!(epochs(&Takeovers::open(&folder)), [3]);
    std::fs::remove_dir_all(folder).unwrap();
}
