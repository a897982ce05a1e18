//! A real Prometheus with the rules of docs/monitoring scrapes a cluster while its owner is killed: alerts fire, and resolve when the
//! router is back.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    process::wait,
};
use vipa_protocol::Trigger;

/// An alert waits for half a minute, and a scrape and an evaluation take a second each; the machine may be busy.
const ALERTED: Duration = Duration::from_secs(120);
const LISTEN: &str = "\n[metrics]\nlisten = \"0.0.0.0:9781\"\n";
const ROUTERS: [&str; 2] = ["10.77.0.11:9781", "10.77.0.12:9781"];
const AGENTS: [&str; 2] = ["10.77.0.31:9781", "10.77.0.32:9781"];

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/monitoring/vipa.rules.yml")
        .canonicalize()
        .unwrap_or_default()
}

/// Prometheus' configuration; where it is.
fn configure(cluster: &Cluster) -> Result<PathBuf> {
    let quoted = |targets: [&str; 2]| targets.map(|target| format!("\"{target}\"")).join(", ");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [{}]\n\
         scrape_configs:\n\
         - {{job_name: vipa-routers, static_configs: [{{targets: [{}]}}]}}\n\
         - {{job_name: vipa-agents, static_configs: [{{targets: [{}]}}]}}\n",
        rules().display(),
        quoted(ROUTERS),
        quoted(AGENTS),
    );
    let path = cluster.lab().dir().join("prometheus.yml");
    fs::write(&path, text)?;
    Ok(path)
}

fn scrape(cluster: &Cluster, target: &str) -> Result<String> {
    cluster.client_host().run("curl", ["-sS", "--fail", "--max-time", "5", &format!("http://{target}/metrics")])
}

/// What Prometheus answers to a query: each series' labels and value.
fn query(cluster: &Cluster, expression: &str) -> Result<Vec<(serde_json::Value, f64)>> {
    let asked = format!("query={expression}");
    let arguments =
        ["-sS", "--fail", "--max-time", "5", "-G", "http://127.0.0.1:9790/api/v1/query", "--data-urlencode", &asked];
    let answer: serde_json::Value = serde_json::from_str(&cluster.client_host().run("curl", arguments)?)?;
    let series = answer["data"]["result"].as_array().context("no result")?;
    let value = |series: &serde_json::Value| series["value"][1].as_str().and_then(|value| value.parse().ok());
    Ok(series.iter().filter_map(|series| Some((series["metric"].clone(), value(series)?))).collect())
}

/// The names of the alerts that fire.
fn firing(cluster: &Cluster) -> Result<Vec<String>> {
    let alerts = query(cluster, "ALERTS{alertstate=\"firing\"}")?;
    let mut names: Vec<String> =
        alerts.iter().filter_map(|(labels, _)| labels["alertname"].as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// `promtool check metrics` finds nothing to say of a scrape.
fn lint(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool, of Debian's prometheus")?;
    promtool.stdin.take().context("its input")?.write_all(text.as_bytes())?;
    let said = promtool.wait_with_output()?;
    let output = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    ensure!(said.status.success() && output.trim().is_empty(), "promtool says of the metrics:\n{output}");
    Ok(())
}

fn value(cluster: &Cluster, expression: &str) -> Option<f64> {
    query(cluster, expression).ok()?.first().map(|(_, value)| *value)
}

#[test]
#[ignore = "needs Debian's prometheus: make test-monitoring"]
fn alerts_fire_when_the_owner_is_killed_and_resolve_when_it_is_back() {
    let plan = Plan { further: LISTEN.into(), agent_lines: LISTEN.into(), ..Plan::new("monitoring") };
    plan.run(|cluster| {
        for target in ROUTERS.iter().chain(&AGENTS) {
            lint(&scrape(cluster, target)?).with_context(|| format!("a scrape of {target}"))?;
        }
        let (file, data) = (configure(cluster)?, cluster.lab().dir().join("prometheus"));
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--web.listen-address=127.0.0.1:9790".into(),
        ];
        let _prometheus = cluster.client_host().spawn("prometheus", "prometheus", arguments)?;
        wait("Prometheus to have scraped all", ALERTED, || (value(cluster, "sum(up)")? == 4.0).then_some(()))?;
        wait("the owner to be known", PATIENCE, || (value(cluster, "sum(vipa_owned)")? == 1.0).then_some(()))?;
        wait("no alert", ALERTED, || firing(cluster).ok()?.is_empty().then_some(()))?;

        cluster.router("r1").kill()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        let expected = ["VipaDown", "VipaNoBackup", "VipaVoterMissing"];
        wait("the alerts", ALERTED, || (firing(cluster).ok()? == expected).then_some(()))?;
        let takeovers = value(cluster, "sum(vipa_takeovers_total{trigger=\"failure\",instance=\"10.77.0.12:9781\"})");
        ensure!(takeovers == Some(1.0), "the takeover is counted: {takeovers:?}");
        let owner = query(cluster, "vipa_owned == 1")?;
        ensure!(owner.len() == 1 && owner[0].0["instance"] == "10.77.0.12:9781", "{owner:?}");

        cluster.router("r1").start()?;
        wait("the alerts to be over", ALERTED, || firing(cluster).ok()?.is_empty().then_some(()))?;
        println!("{expected:?} fired, and resolved");
        Ok(())
    });
}

/// VIPAs beside the one that every cluster has.
const MANY: u32 = 999;
/// What a scrape may cost the control thread, generously: on an idle machine it is a few milliseconds.
const COST: f64 = 0.05;

#[test]
#[ignore = "needs Debian's prometheus: make test-monitoring"]
fn a_scrape_of_a_thousand_vipas_costs_control_milliseconds() {
    let vipa = |number: u32| {
        format!(
            "\n[[vipa]]\naddress = \"10.78.{}.{}\"\nranks = {{ r1 = 200, r2 = 190 }}\n\
             [[vipa.service]]\nprotocol = \"tcp\"\nports = 80\nforwarding = \"direct\"\n\
             candidates = [\"10.77.0.31\", \"10.77.0.32\"]\n",
            number / 250,
            number % 250 + 1
        )
    };
    let many: String = (0..MANY).map(vipa).collect();
    let plan = Plan { further: format!("{LISTEN}{many}"), alone: true, lease_ms: 1_000, ..Plan::new("scrapes") };
    plan.run(|cluster| {
        let of = |text: &str, name: &str| -> Option<f64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let is_one = |line: &&str| line.rsplit(' ').next().and_then(|value| value.parse().ok()) == Some(1.0);
        let owned = |text: &str| text.lines().filter(|line| line.starts_with("vipa_owned{")).filter(is_one).count();
        wait("r1 to own all", ALERTED, || (owned(&scrape(cluster, ROUTERS[0]).ok()?) == 1_000).then_some(()))?;
        let mut costs = Vec::new();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(600));
            let text = scrape(cluster, ROUTERS[0])?;
            costs.push(of(&text, "vipa_scrape_snapshot_seconds ").context("the cost")?);
            if costs.len() == 20 {
                println!("{} lines, {} bytes", text.lines().count(), text.len());
                lint(&text)?;
            }
        }
        costs.sort_by(f64::total_cmp);
        println!(
            "a snapshot took {:.1} ms at best, {:.1} ms mostly, {:.1} ms at worst",
            costs[0] * 1e3,
            costs[10] * 1e3,
            costs[19] * 1e3
        );
        ensure!(costs[10] < COST, "a snapshot takes {:.1} ms", costs[10] * 1e3);
        Ok(())
    });
}
