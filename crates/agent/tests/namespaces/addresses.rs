//! Changes that the agent makes on the host, and undoes.

use vipa_model::PortRange;

use crate::{
    host::{Host, on_a_host, run, set_sysctl, sysctl, times_on_lo, until},
    router::{ELSEWHERE, HERE, Router},
};

const ON_LO: &str = "192.0.2.10/32";

fn until_the_vipa_is_here() {
    until("the VIPA is on lo", || times_on_lo(ON_LO) > 0);
}

fn until_the_vipa_is_gone() {
    until("the VIPA is off lo", || times_on_lo(ON_LO) == 0);
}

fn distribute(router: &mut Router) {
    router.until_linked();
    router.distribute(1, PortRange::one(80), &[HERE]);
}

fn assert_as_before(host: &Host) {
    assert_eq!(times_on_lo(ON_LO), 0);
    assert_eq!((sysctl("conf/all/arp_ignore"), sysctl("conf/all/arp_announce")), ("0".into(), "0".into()));
    assert!(!host.kept_changes().exists(), "nothing is left to be undone");
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_vipa_comes_with_a_list_that_names_this_host_outlives_the_agent_and_cleanup_leaves_no_trace() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        assert_as_before(host);
        distribute(&mut router);
        until_the_vipa_is_here();
        assert_eq!((sysctl("conf/all/arp_ignore"), sysctl("conf/all/arp_announce")), ("1".into(), "2".into()));
        let refused = host.try_clean_up();
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("stop it first"));
        agent.stop();
        assert_eq!((times_on_lo(ON_LO), sysctl("conf/all/arp_ignore").as_str()), (1, "1"));
        assert_eq!(
            host.clean_up(),
            "192.0.2.10 is off lo\nnet.ipv4.conf.all.arp_announce is 0 again\nnet.ipv4.conf.all.arp_ignore is 0 again\n"
        );
        assert_as_before(host);
        assert_eq!(host.clean_up(), "there was nothing to undo\n");
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_vipa_goes_when_no_list_names_this_host_any_more() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        distribute(&mut router);
        until_the_vipa_is_here();
        router.distribute(1, PortRange::one(80), &[ELSEWHERE]);
        until_the_vipa_is_gone();
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_vipa_stays_when_its_routers_are_gone() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        until_the_vipa_is_here();
        router.listen_for(std::time::Duration::from_millis(100));
        drop(router);
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert_eq!(times_on_lo(ON_LO), 1);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_vipa_and_settings_that_somebody_else_put_there_stay() {
    on_a_host(|host| {
        run("ip", "address add 192.0.2.10/32 dev lo");
        set_sysctl("conf/all/arp_ignore", "1");
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        distribute(&mut router);
        until("arp_announce is set", || sysctl("conf/all/arp_announce") == "2");
        router.associate(1);
        agent.stop();
        host.clean_up();
        assert_eq!(times_on_lo(ON_LO), 1);
        assert_eq!((sysctl("conf/all/arp_ignore"), sysctl("conf/all/arp_announce")), ("1".into(), "0".into()));
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_a_crash_left_is_taken_over_once_and_undone_by_cleanup() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        distribute(&mut router);
        until_the_vipa_is_here();
        agent.crash();
        assert_eq!(times_on_lo(ON_LO), 1, "a crash takes nothing from the connections");
        router.until("the link is lost", |view| !view.linked);

        let agent = host.start_agent();
        distribute(&mut router);
        router.associate(1);
        assert_eq!(times_on_lo(ON_LO), 1);
        agent.stop();
        host.clean_up();
        assert_as_before(host);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn after_a_reboot_the_vipa_is_put_there_again() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        distribute(&mut router);
        until_the_vipa_is_here();
        agent.crash();
        router.until("the link is lost", |view| !view.linked);
        // The state folder survives a reboot, addresses and settings do not.
        run("ip", "address del 192.0.2.10/32 dev lo");
        set_sysctl("conf/all/arp_ignore", "0");
        set_sysctl("conf/all/arp_announce", "0");

        let agent = host.start_agent();
        distribute(&mut router);
        until_the_vipa_is_here();
        agent.stop();
        host.clean_up();
        assert_as_before(host);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_crashed_agent_s_vipa_moves_when_another_interface_is_configured() {
    on_a_host(|host| {
        run("ip", "link add v0 type veth peer name v1");
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        distribute(&mut router);
        until_the_vipa_is_here();
        agent.crash();
        router.until("the link is lost", |view| !view.linked);

        host.configure_interface("v0");
        let agent = host.start_agent();
        distribute(&mut router);
        until_the_vipa_is_gone();
        until("the VIPA is on v0", || run("ip", "-o -4 address show dev v0").contains(ON_LO));
        agent.stop();
        host.clean_up();
        assert_eq!(run("ip", "-o -4 address show dev v0"), "");
        assert_as_before(host);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_would_be_changed_is_said_and_not_done() {
    on_a_host(|host| {
        run("ip", "link add v0 type veth peer name v1");
        run("ethtool", "-K v0 rx-gro-list on");
        host.configure_tunnels(HERE, "v0");
        let said = host.setup();
        for line in [
            "sysctl   net.ipv4.conf.all.arp_ignore from 0 to 1",
            "sysctl   net.ipv4.conf.all.arp_announce from 0 to 2",
            "address  each VIPA that a list of candidates sends to 10.9.0.31: as /32 or /128 on lo",
            "bpf      program vipa_observe on /sys/fs/cgroup",
            "qdisc    clsact on v0",
            "filter   BPF program vipa_unwrap on the ingress of v0, pref 22089",
            "to know  v0 has MTU 1500: 1448 bytes fit into the longest headers; clients that send 1500 learn it",
            "to know  v0 has rx-gro-list on",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert_as_before(host);
        assert!(!run("tc", "qdisc show dev v0").contains("clsact"));
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_may_keep_packets_of_tunnels_away_is_said_whichever_means_unwraps_them() {
    on_a_host(|host| {
        run("ip", "link add v0 type veth peer name v1");
        run("ip", "link set v0 up");
        run("ip", "link set v1 up");
        host.configure_tunnels(HERE, "v0");
        let by_bpf = host.setup();
        host.configure("decap = \"kernel\"");
        let both = |line: &str| [by_bpf.contains(line), host.setup().contains(line)];
        let late = "advmss 1408 (IPv6: 1388) of the route to the clients has them send less";
        assert_eq!(both(late), [true, true], "{}", host.setup());
        // An interface that advertises less to clients, or carries more, needs no remark.
        run("ip", "route add default dev v0 advmss 1408");
        let said = host.setup();
        assert!(said.contains("1448 bytes fit into the longest headers\n") && !said.contains(late), "{said}");
        run("ip", "route change default dev v0 advmss 1460");
        assert!(host.setup().contains(late));
        run("ip", "link set v0 mtu 1552");
        assert!(host.setup().contains("to know  v0 has MTU 1552: 1500 bytes fit into the longest headers\n"));
        run("ip", "link set v0 mtu 1300");
        assert!(host.setup().contains("1248 bytes fit into the longest headers; IPv6 needs 1280: raise the MTU\n"));
        set_sysctl("conf/all/rp_filter", "0");
        set_sysctl("conf/v0/rp_filter", "1");
        let said = host.setup();
        assert!(said.contains("to know  v0 has rp_filter 1: tunnels of routers that are reached by another"), "{said}");
        run("ip", "link del v0");
        let said = host.setup();
        assert!(said.contains("to know  there is no interface \"v0\" on this host"), "{said}");
    });
}
