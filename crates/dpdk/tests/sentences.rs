//! What a person reads when something is wrong: one sentence with the remedy. Needs no root.

mod bench;

use bench::{alone, device, open, prefix, start};
use vipa_dpdk::{Eal, EalMemory, EalOptions, Error, EthPort, PoolOptions, PortOptions};

#[test]
fn dpdk_starts_once_in_a_process_even_after_it_ended() {
    alone("dpdk_starts_once_in_a_process_even_after_it_ended", || {
        let (eal, pool) = start(&[], 63);
        let options = EalOptions::new(&prefix(), EalMemory::NoHuge { megabytes: 64 }, &[]);
        assert_eq!(Eal::init(&options).unwrap_err(), Error::StartedBefore);
        drop((eal, pool));
        assert_eq!(Eal::init(&options).unwrap_err(), Error::StartedBefore);
    });
}

#[test]
fn an_option_dpdk_does_not_know_is_named() {
    alone("an_option_dpdk_does_not_know_is_named", || {
        let mut options = EalOptions::new(&prefix(), EalMemory::NoHuge { megabytes: 64 }, &[]);
        options.extra.push("--no-such-option".into());
        let error = Eal::init(&options).unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{error}");
    });
}

#[test]
fn a_file_prefix_that_another_process_uses_is_named() {
    alone("a_file_prefix_that_another_process_uses_is_named", || {
        if let Ok(prefix) = std::env::var("VIPA_TAKEN_PREFIX") {
            let options = EalOptions::new(&prefix, EalMemory::NoHuge { megabytes: 64 }, &[]);
            assert_eq!(Eal::init(&options).unwrap_err(), Error::PrefixTaken { prefix });
            return;
        }
        let (_eal, _pool) = start(&[], 63);
        let mut second = bench::child("a_file_prefix_that_another_process_uses_is_named", &[]);
        let output = second.env("VIPA_TAKEN_PREFIX", prefix()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn a_driver_that_is_not_installed_is_named_with_its_package() {
    alone("a_driver_that_is_not_installed_is_named_with_its_package", || {
        let (_eal, pool) = start(&[], 63);
        let error = EthPort::open(&PortOptions::new(&device("net_af_pocket0,iface=lo"), 1, 1), &pool).unwrap_err();
        assert_eq!(
            error.to_string(),
            "net_af_pocket0,iface=lo: DPDK's driver net_af_pocket is not installed: \
             install the Debian package whose name begins with librte-net-af-pocket"
        );
    });
}

#[test]
fn a_kernel_without_vhost_is_said_with_the_remedy() {
    alone("a_kernel_without_vhost_is_said_with_the_remedy", || {
        let (_eal, pool) = start(&[], 63);
        let virtio = device("net_virtio_user0,path=/dev/no-vhost-here,iface=k0");
        let error = EthPort::open(&PortOptions::new(&virtio, 1, 1), &pool).unwrap_err();
        assert_eq!(
            error.to_string(),
            "net_virtio_user0,path=/dev/no-vhost-here,iface=k0: /dev/no-vhost-here is missing: load the kernel's module \
             (modprobe vhost-net), or set `kernel_driver = \"tap\"`"
        );
    });
}

#[test]
fn an_argument_the_driver_does_not_know_is_said_in_dpdks_words() {
    alone("an_argument_the_driver_does_not_know_is_said_in_dpdks_words", || {
        let (_eal, pool) = start(&[], 63);
        let error = EthPort::open(&PortOptions::new(&device("net_pcap0,colour=red"), 1, 1), &pool).unwrap_err();
        assert!(matches!(&error, Error::Probe { log, .. } if !log.is_empty()), "{error}");
        assert!(error.to_string().starts_with("net_pcap0,colour=red: the driver does not take it ("), "{error}");
    });
}

#[test]
fn more_queues_than_the_driver_has_are_refused_and_the_port_is_free_again() {
    alone("more_queues_than_the_driver_has_are_refused_and_the_port_is_free_again", || {
        let (_eal, pool) = start(&[], 4095);
        let ring = device("net_ring0");
        let error = EthPort::open(&PortOptions::new(&ring, 200, 1), &pool).unwrap_err();
        assert!(matches!(error, Error::Queues { wanted: 200, .. }), "{error}");
        let _port = open(&ring, &pool);
    });
}

#[test]
fn an_mtu_that_no_buffer_holds_is_refused_with_what_is_possible() {
    alone("an_mtu_that_no_buffer_holds_is_refused_with_what_is_possible", || {
        let (eal, pool) = start(&[], 4095);
        let null = device("net_null0");
        let options = PortOptions { mtu: Some(9_000), ..PortOptions::new(&null, 1, 1) };
        let error = EthPort::open(&options, &pool).unwrap_err();
        assert!(matches!(error, Error::Mtu { mtu: 9_000, highest: 2_026, .. }), "{error}");
        let options = PortOptions { mtu: Some(1_500), ..PortOptions::new(&null, 1, 1) };
        EthPort::open(&options, &pool).unwrap();
        let large = PoolOptions::new("large", 255).for_mtu(9_000);
        assert_eq!((large.frame_room, PoolOptions::new("small", 255).for_mtu(1_500).frame_room), (9_216, 2_048));
        let large = vipa_dpdk::Pool::new(&eal, &large).unwrap();
        EthPort::open(&PortOptions { mtu: Some(9_000), ..options }, &large).unwrap();
    });
}
