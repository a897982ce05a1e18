//! docs/metrics.md is what the catalogue says.

#[test]
fn the_page_of_metrics_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    if std::env::var_os("WRITE").is_some() {
        std::fs::write(path, vipa_metrics::page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == vipa_metrics::page(),
        "write docs/metrics.md anew: WRITE=1 cargo test -p vipa-metrics --test page"
    );
}
