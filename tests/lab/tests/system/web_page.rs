//! The API and the page of real routers. Chromium looks at the page of the backup, by its DevTools protocol over a pair of pipes, while the
//! owner is killed.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};
use serde_json::{Value, json};
use vipa_lab::{
    cluster::{PATIENCE, Plan, Router},
    netns::Host,
    process::Process,
};
use vipa_protocol::admin::{Answer, Versioned};

use crate::{CONNECTIONS, all_kept, kill_the_owner};

const API: &str = "\n[api]\nlisten = \"127.0.0.1:9780\"\ntls = \"none\"\npage = true\n";
/// A browser that starts beside a busy cluster takes its time.
const BROWSER: Duration = Duration::from_secs(120);
const CARD: &str = "[data-vipa=\"10.77.0.100\"]";

/// Chromium without a window, and one page of it.
struct Browser {
    process: Process,
    orders: File,
    answers: File,
    unread: Vec<u8>,
    session: String,
    last: u64,
    /// What went wrong within the page.
    faults: Vec<String>,
}

impl Browser {
    fn start(host: &Host, folder: &Path) -> Result<Self> {
        let (orders, answers) = (folder.join("devtools-orders"), folder.join("devtools-answers"));
        for pipe in [&orders, &answers] {
            mkfifo(pipe, Mode::S_IRWXU)?;
        }
        // Opened for both directions, a pipe does not wait for its other end.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (ours, theirs) = (open(&orders)?, open(&answers)?);
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run --disable-extensions --hide-scrollbars \
                      --remote-debugging-pipe --user-data-dir=\"$2\" 3<\"$0\" 4>\"$1\"";
        let profile = folder.join("chromium");
        let arguments = [
            "-c".into(),
            script.into(),
            orders.display().to_string(),
            answers.display().to_string(),
            profile.display().to_string(),
        ];
        let process = host.spawn("chromium", "bash", arguments)?;
        let mut browser = Self {
            process,
            orders: ours,
            answers: theirs,
            unread: Vec::new(),
            session: String::new(),
            last: 0,
            faults: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let session =
            browser.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }))?;
        browser.session = session["sessionId"].as_str().context("no session")?.into();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable", "Accessibility.enable"] {
            browser.call(domain, &json!({}))?;
        }
        Ok(browser)
    }

    /// One order, and its result; events that come before it are looked at for faults.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.orders.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let message = self.receive()?;
            if message["id"] == self.last {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            let (event, about) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
            if event == "Runtime.exceptionThrown" || event == "Log.entryAdded" && about["entry"]["level"] == "error" {
                self.faults.push(about.to_string());
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(serde_json::from_slice(&message[..end])?);
            }
            // The pipe has a writer here as well: its end is not seen, so that of the process is looked at.
            let until = Instant::now() + BROWSER;
            while poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], 200_u16)? == 0 {
                ensure!(self.process.ended().is_none(), "chromium ended: {}", self.process.tail(20));
                ensure!(Instant::now() < until, "chromium does not answer: {}", self.process.tail(20));
            }
            let mut some = vec![0; 1 << 16];
            let length = self.answers.read(&mut some)?;
            self.unread.extend_from_slice(&some[..length]);
        }
    }

    /// What the page says to an expression.
    fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &asked)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    fn text(&mut self, selector: &str) -> Result<String> {
        let expression = format!("document.querySelector({selector:?})?.textContent ?? ''");
        Ok(self.eval(&expression)?.as_str().unwrap_or_default().into())
    }

    fn wait_text(&mut self, selector: &str, part: &str) -> Result<String> {
        let until = Instant::now() + BROWSER;
        loop {
            let text = self.text(selector)?;
            if text.contains(part) {
                return Ok(text);
            }
            if Instant::now() > until {
                bail!("{selector} says {text:?}, and not {part:?}; faults: {:?}", self.faults);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn resize(&mut self, width: u32) -> Result<()> {
        let size = json!({ "width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// The roles of everything that a screen reader is told of.
    fn roles(&mut self) -> Result<Vec<String>> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let shown = nodes.iter().filter(|node| node["ignored"] == false);
        Ok(shown.filter_map(|node| node["role"]["value"].as_str().map(str::to_owned)).collect())
    }
}

/// Every question of the API that has no parameters, answered by a real router in the admin protocol's own types.
fn questions_answered(router: &Router) -> Result<()> {
    for question in ["status", "distribution", "takeovers", "counters", "decisions", "connections", "audit"] {
        let url = format!("http://127.0.0.1:9780/v1/{question}");
        let text = router.host().run("curl", ["--silent", "--show-error", "--fail-with-body", &url])?;
        let answer: Versioned<Answer> = serde_json::from_str(&text).with_context(|| format!("{question}: {text}"))?;
        let document = serde_json::to_value(answer.current()?)?;
        ensure!(document["answer"] == question, "{question}: {text}");
    }
    let order = [
        "--silent",
        "-H",
        "Content-Type: application/json",
        "-d",
        "{\"mode\":\"dry-run\"}",
        "http://127.0.0.1:9780/v1/reload",
    ];
    let refused = router.host().run("curl", order)?;
    ensure!(refused.contains("takes the role operate"), "{refused}");
    Ok(())
}

#[test]
#[ignore = "needs chromium: make test-web"]
fn web_page_shows_a_takeover_as_it_happens_and_says_when_its_router_is_gone() {
    Plan { further: API.into(), ..Plan::new("web_page") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        questions_answered(cluster.router("r2"))?;
        let (host, folder) = (cluster.router("r2").host().clone(), cluster.lab().dir().to_path_buf());
        let mut browser = Browser::start(&host, &folder)?;
        browser.resize(1920)?;
        browser.call("Page.navigate", &json!({ "url": "http://127.0.0.1:9780/" }))?;

        browser.wait_text(&format!("{CARD} .badge"), "owned by r1")?;
        browser.wait_text(&format!("{CARD} [data-router=r2] .role"), "backup")?;
        browser.wait_text("#live-text", "live")?;
        ensure!(browser.text("#cluster")?.contains("lab"), "the cluster is named");
        ensure!(browser.eval("document.querySelectorAll('.target').length")? == 3, "all targets are drawn");
        let shares =
            browser.eval("[...document.querySelectorAll('.target .share')].map((it) => parseInt(it.textContent))")?;
        ensure!(shares == json!([33, 33, 33]), "the shares are said: {shares}");
        ensure!(browser.text("#takeover-list")?.is_empty(), "r2 has not taken over yet");
        for width in [360, 1920] {
            browser.resize(width)?;
            ensure!(browser.eval("document.documentElement.scrollWidth")? == width, "nothing juts out at {width} px");
            let curves = browser.eval("document.querySelectorAll('.flow[d]').length")?;
            ensure!(curves.as_u64() >= Some(3), "the owner is joined to its targets at {width} px: {curves}");
        }
        let roles = browser.roles()?;
        for role in ["banner", "main", "contentinfo", "region", "status", "heading", "list", "table", "article"] {
            ensure!(roles.iter().any(|known| known == role), "a screen reader finds no {role}: {roles:?}");
        }

        kill_the_owner(cluster, &mut client)?;
        browser.wait_text(&format!("{CARD} .badge"), "owned by r2")?;
        browser.wait_text(&format!("{CARD} [data-router=r2] .role"), "owner")?;
        browser.wait_text(&format!("{CARD} [data-router=r1] .role"), "no link")?;
        let news = browser.wait_text("#news", "now owned by r2")?;
        ensure!(news.contains("10.77.0.100") && news.contains("before by r1"), "{news}");
        let line = browser.wait_text(".takeover[data-vipa=\"10.77.0.100\"]", "r1 → r2")?;
        for part in ["the owner was missed", "votes ", "table rebuilt ", "announced ", "3 of 3 targets answered"] {
            ensure!(line.contains(part), "{part:?} is not in {line}");
        }
        let phases =
            browser.eval("[...document.querySelectorAll('.takeover .phases i')].map((it) => it.offsetWidth)")?;
        let widths: Vec<u64> = serde_json::from_value(phases.clone())?;
        ensure!(widths.len() == 3 && widths.iter().all(|width| *width > 0), "three phases are drawn: {phases}");
        ensure!(browser.faults.is_empty(), "the page has faults: {:?}", browser.faults);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        let ground = "getComputedStyle(document.body).backgroundColor";
        let light = browser.eval(ground)?;
        browser.call("Emulation.setEmulatedMedia", &scheme)?;
        ensure!(browser.eval(ground)? != light, "a dark scheme is dark");

        cluster.router("r1").start()?;
        browser.wait_text(&format!("{CARD} .badge"), "owned by r1")?;
        all_kept(cluster, client)?;
        cluster.router("r2").kill()?;
        let lost = browser.wait_text("#lost", "r2 does not answer")?;
        ensure!(lost.contains("What you see is of "), "{lost}");
        ensure!(browser.eval("document.body.classList.contains('is-lost')")? == true, "the picture is greyed");
        let _ = browser.process.stop(PATIENCE);
        Ok(())
    });
}
