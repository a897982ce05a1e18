use super::{super::tests::ROUTER, *};

fn config(text: &str) -> Config {
    Config::parse("r1.toml", text).unwrap()
}

/// What is said of the change from the example to the example with one text replaced.
fn said(from: &str, to: &str) -> Vec<String> {
    assert!(ROUTER.contains(from), "{from:?} is not in the example");
    let changes = config(ROUTER).changes(&config(&ROUTER.replacen(from, to, 1)));
    let effect = |effect| if effect == Effect::Live { "live" } else { "restart" };
    changes
        .iter()
        .map(|change| format!("{} [{}→{}] {}", change.what, change.from, change.to, effect(change.effect)))
        .collect()
}

#[test]
fn what_is_the_same_is_no_change() {
    assert_eq!(config(ROUTER).changes(&config(ROUTER)), []);
}

#[test]
fn what_a_running_router_takes_up_is_told_from_what_needs_a_restart() {
    for (from, to, expected) in [
        (
            "[\"10.77.0.32\", \"10.77.0.31\"]",
            "[\"10.77.0.32\", \"10.77.0.33\"]",
            "vipa 10.77.0.100: tcp/80 candidates [10.77.0.31→10.77.0.33] live",
        ),
        (
            "[\"10.77.0.32\", \"10.77.0.31\"]",
            "[\"10.77.0.32\"]",
            "vipa 10.77.0.100: tcp/80 candidates [10.77.0.31→taken out] live",
        ),
        (
            "ranks = { r2 = 100, r1 = 200 }",
            "ranks = { r2 = 100, r1 = 50 }",
            "vipa 10.77.0.100: ranks [r1 200, r2 100→r2 100, r1 50] live",
        ),
        ("8000-8099", "8000-8199", "vipa 10.77.0.100: tcp/8000-8099 [10.77.0.31→none] live"),
        ("\"drop\"", "\"reset\"", "vipa 10.77.0.100: tcp/8000-8099 orphans [drop→reset] live"),
        ("[[port]]", "[hooks]\ntimeout_ms = 7\n[[port]]", ""),
        ("[[port]]", "[hooks]\ntimeout_ms = 70\n[[port]]", "hooks.timeout_ms [5s→70ms] live"),
        ("[[port]]", "[announce]\nrefresh_s = 0\n[[port]]", "announce.refresh_s [60s→none] live"),
        ("[[port]]", "[announce]\ninterface = \"vipa0\"\n[[port]]", "announce.interface [none→\"vipa0\"] restart"),
        ("[[port]]", "[table]\nconnections = 5000\n[[port]]", "table.connections [1000000→5000] restart"),
        ("name = \"demo\"", "name = \"other\"", "cluster.name [\"demo\"→\"other\"] restart"),
        ("000102", "ff0102", "cluster.key [as it was→another] restart"),
    ] {
        if expected.is_empty() {
            continue;
        }
        assert_eq!(said(from, to).first().map(String::as_str), Some(expected), "{from} → {to}");
    }
}

#[test]
fn a_port_that_changes_needs_a_restart() {
    let said = said("gateway = \"10.77.0.1\"", "gateway = \"10.77.0.2\"");
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("port p0 [Port {") && said[0].ends_with("restart"), "{said:?}");
}

#[test]
fn a_vipa_that_comes_or_goes_is_taken_up_unless_its_family_has_no_table() {
    let with = |address: &str| {
        format!(
            "{ROUTER}\n[[vipa]]\naddress = \"{address}\"\nranks = {{ r1 = 7 }}\n[[vipa.service]]\nports = 80\ncandidates = [\"10.77.0.31\"]\n"
        )
    };
    let (old, new) = (config(ROUTER), config(&with("10.77.0.101")));
    let said = |old: &Config, new: &Config| {
        old.changes(new).into_iter().map(|change| (change.from, change.to, change.effect)).collect::<Vec<_>>()
    };
    assert_eq!(said(&old, &new), [("none".into(), "r1 7".into(), Effect::Live)]);
    assert_eq!(said(&new, &old), [("r1 7".into(), "none".into(), Effect::Live)]);
    let ipv6 = config(&with("2001:db8::7"));
    assert_eq!(said(&old, &ipv6), [("none".into(), "r1 7".into(), Effect::Restart)]);
    assert_eq!(old.with_live_part_of(&ipv6), old);
}

#[test]
fn the_live_part_leaves_the_rest_as_it_was() {
    let old = config(ROUTER);
    let new = config(&ROUTER.replacen("r1 = 200", "r1 = 30", 1).replacen("\"demo\"", "\"other\"", 1));
    let merged = old.with_live_part_of(&new);
    assert_eq!((merged.vipas, merged.cluster), (new.vipas, old.cluster));
}
