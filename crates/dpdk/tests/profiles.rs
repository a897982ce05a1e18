//! The profiles in dpdk-config/ name devices that this crate takes, and those it can open here it opens.

mod bench;

use std::fs;
use std::path::{Path, PathBuf};

use bench::{alone, device, start};
use vipa_dpdk::{Device, EthPort, PortOptions};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dpdk-config")
}

/// The devices of a profile, those in its comments too.
fn devices(profile: &Path) -> Vec<Device> {
    let text = fs::read_to_string(profile).unwrap();
    let lines = text.lines().map(|line| line.trim_start_matches("# "));
    let quoted = lines.filter_map(|line| line.strip_prefix("device = \"")?.strip_suffix('"'));
    quoted.map(device).collect()
}

#[test]
fn every_profile_names_a_device_and_the_readme_names_every_profile() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let profiles: Vec<_> =
        fs::read_dir(folder().join("profiles")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(profiles.len() >= 6);
    for profile in profiles {
        assert!(!devices(&profile).is_empty(), "{}", profile.display());
        let name = profile.file_name().unwrap().to_string_lossy();
        assert!(readme.contains(&format!("| `{name}` |")), "README.md lacks {name}");
    }
}

#[test]
fn the_profile_that_replays_a_capture_replays_it_for_ever() {
    alone("the_profile_that_replays_a_capture_replays_it_for_ever", || {
        let file = std::env::temp_dir().join(format!("vipa-profile-{}.pcap", std::process::id()));
        fs::write(&file, bench::capture(&[bench::frame(1, 64), bench::frame(2, 64)])).unwrap();
        let [profile] = devices(&folder().join("profiles/pcap.toml")).try_into().unwrap();
        let pcap = device(&profile.to_string().replace("/tmp/flows.pcap", &file.display().to_string()));
        let (_eal, pool) = start(&[&pcap], 8191);
        let mut port = EthPort::open(&PortOptions::new(&pcap, 1, 1), &pool).unwrap();
        assert_eq!(port.port.mac(), [0x02, 0x70, 0x63, 0x61, 0x70, 0x00]);
        let mut burst = vipa_dpdk::Burst::new();
        let mut sent = 0;
        while sent < 1_000 {
            port.rx[0].burst(&mut burst);
            sent += port.tx[0].burst(&mut burst);
        }
        drop((burst, port));
        assert_eq!(pool.available(), 8191);
        fs::remove_file(file).unwrap();
    });
}
