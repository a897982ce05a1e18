// Draws what the router answers. It asks again and again, and says plainly when no answer comes.
"use strict";

const QUESTIONS = { status: "/v1/status", health: "/v1/health", distribution: "/v1/distribution", takeovers: "/v1/takeovers", counters: "/v1/counters" };
const PERIOD_MS = 1000;          // between two looks
const HIDDEN_MS = 15000;         // while nobody looks at the page
const LONGEST_PAUSE_MS = 15000;  // between two attempts at a router that does not answer
const PATIENCE_MS = 5000;        // for one answer
const HISTORY = 120;             // points of a small diagram
const MOST_CARDS = 60;           // VIPAs drawn at once
const MOST_TARGETS = 12;         // targets drawn of one service
const MOST_TAKEOVERS = 30;

const $ = (id) => document.getElementById(id);

/** An element; texts stay texts. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function drawn(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Writes only what is different, so that nothing flickers and no selection is lost. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
const dress = (element, name) => { if (element.className !== name) element.className = name; };

// ── words and numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const whole = new Intl.NumberFormat("en");
const count = (number) => whole.format(number);
function rateText(rate) {
  if (rate == null) return "–";
  if (rate >= 1e6) return (rate / 1e6).toFixed(2) + " M/s";
  if (rate >= 1e4) return (rate / 1e3).toFixed(1) + " k/s";
  return (rate > 0 && rate < 10 ? rate.toFixed(1) : count(Math.round(rate))) + " /s";
}
function micros(us) {
  if (us >= 1e6) return (us / 1e6).toFixed(2) + " s";
  if (us >= 1e4) return Math.round(us / 1e3) + " ms";
  return us >= 100 ? (us / 1e3).toFixed(1) + " ms" : us + " µs";
}
function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}
const two = (number) => String(number).padStart(2, "0");
function clock(date) {
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  const today = new Date().toDateString() === date.toDateString();
  return today ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}
function portsText({ first, last }) {
  if (first === 1 && last === 65535) return "all ports";
  return first === last ? String(first) : `${first}-${last}`;
}
const serviceText = (service) => `${service.protocol}/${portsText(service.ports)}`;
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

const CAUSES = {
  first: "nobody had owned it", failure: "the owner was missed", takeback: "this router ranks higher", handover: "the owner handed it over",
};
const REASONS = {
  "not-candidate": () => "not a candidate here, runs out",
  "not-linked": () => "its agent has no link to this router",
  "not-listening": () => "nothing listens",
  quiesced: () => "quiesced by an operator",
  draining: () => "draining",
  "check-failing": (why) => `its check ${why.check} fails${why.detail ? ": " + why.detail : ""}`,
  unreachable: (why) => `none of ${count(why.in_vain)} new connections has reached it`,
  "not-accepting": (why) => `its server accepts none of ${count(why.waiting)} waiting`,
  "queue-full": (why) => `its accept queue is full, ${count(why.waiting)} waiting`,
};
function reason(row) {
  const why = row.fitness;
  if (!why || why.code === "fit") return "";
  return REASONS[why.code] ? REASONS[why.code](why) : why.code.replaceAll("-", " ");
}

// ── rates ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

let before = null;  // the last counters, and when they came
let rates = null;   // a second, by counter

function takeCounters(total, at) {
  if (before && at > before.at) {
    const seconds = (at - before.at) / 1000;
    const rate = ([name, value]) => [name, Math.max(0, value - (before.total[name] ?? 0)) / seconds];
    // After a restart the counters begin anew.
    const same = Object.entries(total).every(([name, value]) => name === "holding" || value >= (before.total[name] ?? 0));
    rates = same ? Object.fromEntries(Object.entries(total).map(rate)) : null;
  }
  before = { total, at };
}

const histories = {};
function spark(id, rate) {
  const history = histories[id] ??= [];
  history.push(rate ?? 0);
  if (history.length > HISTORY) history.shift();
  const svg = $(id + "-spark");
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(drawn("path"));
  }
  const top = Math.max(...history, 1) * 1.05;
  const start = HISTORY - history.length;
  const points = history.map((value, index) => `${start + index},${(100 - value / top * 96).toFixed(1)}`);
  svg.firstChild.setAttribute("d", `M${start},102 L${points.join(" L")} L${HISTORY - 1},102`);
}

// ── what is wrong ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What the router's own checks have found, and who was refused. */
function notices(status, health) {
  const found = health.checks.filter((check) => check.severity !== "ok").map((check) =>
    ({ title: check.name.replaceAll("-", " "), text: check.finding, critical: check.severity === "critical" }));
  const refused = (status.refused ?? []).map((it) => ({ title: "refused", critical: false,
    text: `${[it.node, it.address].filter(Boolean).join(" at ")}: ${it.why} (${plural(it.times, "time")}, the last ${span(it.last_ms_ago)} ago)` }));
  return [...found, ...refused];
}

function drawNotices(status, health) {
  const list = notices(status, health).slice(0, 40);
  const words = { ok: ["good", "well"], warning: ["warn", "warning"], critical: ["bad", "critical"] };
  const [kind, word] = words[health.severity] ?? ["", health.severity];
  dress($("verdict"), "badge " + kind);
  say($("verdict"), word);
  $("notices").hidden = list.length === 0;
  const shown = [...$("notice-list").children].map((item) => item.textContent).join("\n");
  const wanted = list.map(({ title, text }) => title + " " + text).join("\n");
  if (shown === wanted) return;
  $("notice-list").replaceChildren(...list.map(({ title, text, critical }) =>
    make("li", { class: critical ? "critical" : false }, make("strong", {}, title), " " + text)));
}

// ── VIPAs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const cards = new Map();  // by address
let owners = null;        // by address, as they were at the last look
let hues = new Map();     // by router

function hueOf(router) {
  return router && hues.has(router) ? `var(--r${hues.get(router) % 6})` : "var(--quiet)";
}

/** What a router is to a VIPA, in a word or two. */
function roleOf(name, vipa, status, up) {
  if (name === vipa.owner) {
    if (vipa.fenced && name === status.node) return ["owner down", "owner, fenced"];
    if (name === status.node && vipa.stance === "rebuilding") return ["owner", "owner, rebuilding"];
    if (!up(name)) return ["down", "was owner, no link"];
    return ["owner", "owner"];
  }
  if (!up(name)) return ["down", "no link"];
  if (vipa.succession?.barred?.includes(name)) return ["barred", "may not own it"];
  if (name === vipa.succession?.yielding_to) return ["backup", "takes over"];
  if (name === status.node) {
    if (status.unfit) return ["barred", "unfit"];
    const words = { suspecting: "misses the owner", claiming: "asks the voters", yielding: "hands over" };
    if (words[vipa.stance]) return ["backup", words[vipa.stance]];
  }
  return ["backup", "backup"];
}

function stateOf(vipa, status, up) {
  if (!vipa.owner) return ["bad", "no owner"];
  if (vipa.fenced) return ["bad", "fenced"];
  if (!up(vipa.owner)) return ["warn", `no link to its owner ${vipa.owner}`];
  if (vipa.owner === status.node && vipa.stance === "rebuilding") return ["warn", "rebuilding its table"];
  const others = vipa.ranks.map(([name]) => name).filter((name) => name !== vipa.owner);
  if (others.length && !others.some(up)) return ["warn", `owned by ${vipa.owner}, no backup`];
  return ["good", `owned by ${vipa.owner}`];
}

function newCard(address) {
  const card = make("article", { class: "vipa", "data-vipa": address, "aria-label": "VIPA " + address });
  const parts = {
    title: make("h3", {}, address), state: make("span", { class: "badge" }), sub: make("p", { class: "sub" }),
    routers: make("ol", { class: "routers", "aria-label": "Routers, first in line first" }),
    flows: drawn("svg", { class: "flows", "aria-hidden": "true" }),
    services: make("div", { class: "services" }), table: make("tbody"),
  };
  const head = make("thead", {}, make("tr", {}, ...["Service", "Target", "Node", "New connections", "Connections", "State"]
    .map((text) => make("th", { scope: "col" }, text))));
  parts.picture = make("div", { class: "picture" }, parts.routers, parts.flows, parts.services);
  parts.details = make("details", {}, make("summary", {}, "As a table"),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Targets of " + address },
      make("table", {}, make("caption", { class: "unseen" }, "Targets of " + address), head, parts.table)));
  card.append(make("header", {}, parts.title, parts.state, parts.sub), parts.picture, parts.details);
  const it = { card, parts, shape: "", lines: [], redraw: () => drawFlows(it) };
  new ResizeObserver(it.redraw).observe(parts.picture);
  return it;
}

/** The rows of a service's targets: its share of new connections is the weight's part of all weights. */
function targetRows(service) {
  const all = service.targets.reduce((sum, row) => sum + (row.chosen ? row.weight : 0), 0);
  return service.targets.map((row) => ({ row, share: row.chosen && all ? row.weight / all : 0, why: reason(row) }));
}

function factsOf({ row, why }) {
  const facts = [plural(row.connections, "connection")];
  if (row.waiting) facts.push(`${count(row.waiting)} waiting`);
  const parts = ["reached", "established", "accepted"].map((part) => row.responsiveness?.[part]).filter((part) => part != null);
  if (parts.length) {
    const served = Math.round(parts.reduce((product, part) => product * part / 100, 1) * 100);
    if (served < 100) facts.push(`serves ${served} %`);
  }
  if (why) facts.unshift(why);
  return facts.join(" · ");
}

function drawCard(it, vipa, services, status, up) {
  const { parts } = it;
  it.card.style.setProperty("--hue", hueOf(vipa.owner));
  const [kind, state] = stateOf(vipa, status, up);
  dress(parts.state, "badge " + kind);
  say(parts.state, state);
  const names = services.map(({ service }) => serviceText(service)).join(", ") || "no service known yet";
  const extra = [];
  if (vipa.succession?.group) extra.push("group " + vipa.succession.group);
  if (vipa.succession?.placed) extra.push("moved to " + vipa.succession.placed);
  if (vipa.succession?.takeback) extra.push("comes back after: " + vipa.succession.takeback);
  say(parts.sub, [names, plural(vipa.connections, "connection"), "epoch " + vipa.epoch, ...extra].join(" · "));

  // The skeleton is made anew only when there are other routers, services or targets.
  const shape = JSON.stringify([vipa.ranks, services.map(({ service, targets }) => [service.protocol, service.ports, targets.map((row) => row.target)])]);
  if (shape !== it.shape) {
    it.shape = shape;
    it.routers = vipa.ranks.map(([name, rank]) => {
      const role = make("span", { class: "role" });
      const item = make("li", { class: "router", "data-router": name, title: `${name}, rank ${rank}` }, make("span", { class: "name" }, name), role);
      return { name, rank, item, role };
    });
    parts.routers.replaceChildren(...it.routers.map(({ item }) => item));
    it.lines = [];
    parts.services.replaceChildren(...services.map((service, index) => {
      const list = make("ul", { class: "targets" });
      for (const row of service.targets.slice(0, MOST_TARGETS)) {
        const share = make("span", { class: "share" }), facts = make("p", { class: "facts" }), fill = make("i");
        const who = row.node ? `${row.node} ${row.target}` : row.target;
        const item = make("li", { class: "target", "data-target": row.target },
          make("div", { class: "line" }, make("span", { class: "who", title: who }, who), share),
          make("span", { class: "bar", "aria-hidden": "true" }, fill), facts);
        list.append(item);
        it.lines.push({ index, target: row.target, item, share, facts, fill, path: drawn("path", { class: "flow" }), flow: drawn("path", { class: "flow on" }) });
      }
      if (service.targets.length > MOST_TARGETS) list.append(make("li", { class: "more" }, `and ${count(service.targets.length - MOST_TARGETS)} more in the table`));
      return make("section", { class: "service", "aria-label": serviceText(service.service) },
        make("h4", {}, `${serviceText(service.service)} · ${service.service.balance} · ${service.service.delivery?.forwarding ?? ""}`), list);
    }));
    parts.flows.replaceChildren(...it.lines.flatMap(({ path, flow }) => [path, flow]));
  }
  it.owner = null;
  for (const { name, rank, item, role } of it.routers) {
    const [kind, text] = roleOf(name, vipa, status, up);
    dress(item, "router " + kind);
    item.style.setProperty("--hue", hueOf(name));
    say(role, `${text} · rank\u00a0${rank}`);
    if (name === vipa.owner && kind !== "down") it.owner = item;
  }
  const rows = services.map(targetRows);
  for (const line of it.lines) {
    const entry = rows[line.index].find(({ row }) => row.target === line.target);
    line.part = entry.share;
    dress(line.item, entry.row.chosen ? "target" : "target out");
    say(line.share, entry.row.chosen ? Math.round(entry.share * 100) + "\u00a0%" : "0\u00a0%");
    say(line.facts, factsOf(entry));
    const width = (entry.share * 100).toFixed(1) + "%";
    if (line.fill.style.width !== width) line.fill.style.width = width;
  }
  if (parts.details.open) {
    parts.table.replaceChildren(...services.flatMap((service, index) => rows[index].map((entry) => make("tr", {},
      make("td", {}, serviceText(service.service)), make("td", {}, entry.row.target), make("td", {}, entry.row.node ?? "–"),
      make("td", { class: "number" }, entry.row.chosen ? Math.round(entry.share * 100) + " %" : "none"),
      make("td", { class: "number" }, count(entry.row.connections)), make("td", {}, entry.why || (entry.row.chosen ? "serves" : "–"))))));
  }
  drawFlows(it);
}

/** Curves from the owner to each target, as thick as the target's share. */
function drawFlows(it) {
  const box = it.parts.flows.getBoundingClientRect();
  const middle = (element) => { const own = element.getBoundingClientRect(); return own.top + own.height / 2 - box.top; };
  const moving = (rates?.forwarded ?? 0) > 0;
  for (const { item, part, path, flow } of it.lines) {
    if (!it.owner || !part || !box.width) { path.removeAttribute("d"); flow.removeAttribute("d"); continue; }
    const from = middle(it.owner), to = middle(item), w = box.width;
    const curve = `M-2,${from} C${w * .55},${from} ${w * .45},${to} ${w + 2},${to}`;
    path.setAttribute("d", curve);
    path.setAttribute("stroke-width", (2 + 7 * part).toFixed(1));
    if (moving) { flow.setAttribute("d", curve); flow.setAttribute("stroke-width", (1.5 + 3 * part).toFixed(1)); } else flow.removeAttribute("d");
  }
}

function drawVipas(status, distribution) {
  const links = new Map(status.links.map((link) => [link.node, link.up]));
  const up = (name) => name === status.node || links.get(name) !== false;
  const routers = [...new Set([status.node, ...status.links.filter((link) => !link.target).map((link) => link.node)])].sort();
  hues = new Map(routers.map((name, index) => [name, index]));
  const services = new Map(distribution.vipas.map((vipa) => [vipa.vipa, vipa.services]));

  const many = status.vipas.length > 6;
  $("filter-label").hidden = !many;
  const wanted = many ? $("filter").value.trim().toLowerCase() : "";
  const matches = (vipa) => !wanted || [vipa.address, vipa.owner ?? "nobody", ...vipa.ranks.map(([name]) => name),
    ...(services.get(vipa.address) ?? []).flatMap((service) => service.targets.flatMap((row) => [row.target, row.node ?? ""]))]
    .some((text) => text.toLowerCase().includes(wanted));
  const found = status.vipas.filter(matches);
  const shown = found.slice(0, MOST_CARDS);
  $("vipas-none").hidden = status.vipas.length > 0;
  $("vipas-more").hidden = found.length === shown.length && found.length > 0 || status.vipas.length === 0;
  say($("vipas-more"), found.length ? `${count(shown.length)} of ${count(found.length)} are drawn; look for others above.` : "No VIPA has that in it.");

  const news = [];
  for (const vipa of status.vipas) {
    const was = owners?.get(vipa.address);
    if (owners?.has(vipa.address) && was !== vipa.owner) {
      news.push(`${vipa.address}: ${vipa.owner ? `now owned by ${vipa.owner}` : "owned by nobody"}${was ? `, before by ${was}` : ""}.`);
    }
  }
  for (const address of cards.keys()) {
    if (!shown.some((vipa) => vipa.address === address)) { cards.get(address).card.remove(); cards.delete(address); }
  }
  shown.forEach((vipa, place) => {
    if (!cards.has(vipa.address)) cards.set(vipa.address, newCard(vipa.address));
    const it = cards.get(vipa.address);
    if ($("cards").children[place] !== it.card) $("cards").insertBefore(it.card, $("cards").children[place] ?? null);
    drawCard(it, vipa, services.get(vipa.address) ?? [], status, up);
    if (owners?.has(vipa.address) && owners.get(vipa.address) !== vipa.owner) flash(it.card, "vipa changed", "vipa");
  });
  owners = new Map(status.vipas.map((vipa) => [vipa.address, vipa.owner]));
  if (news.length) say($("news"), news.length > 5 ? `${news.length} VIPAs have another owner.` : news.join(" "));
}

function flash(element, name, then) {
  element.className = name;
  setTimeout(() => { if (element.className === name) element.className = then; }, 4000);
}

// ── takeovers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

let knownTakeovers = null;

function drawTakeovers(records, status) {
  const key = (record) => `${record.vipa} ${record.epoch}`;
  const latest = records.slice(-MOST_TAKEOVERS).reverse();
  $("takeovers-none").hidden = latest.length > 0;
  const list = $("takeover-list");
  const shown = [...list.children].map((item) => item.dataset.key).join();
  if (shown !== latest.map(key).join()) {
    const longest = Math.max(...latest.map((record) => record.detect_us + record.collect_us + record.rebuild_us), 1);
    list.replaceChildren(...latest.map((record) => {
      const item = takeover(record, status.node, longest);
      item.dataset.key = key(record);
      if (knownTakeovers && !knownTakeovers.has(key(record))) flash(item, "takeover fresh", "takeover");
      return item;
    }));
  }
  knownTakeovers = new Set(records.map(key));
}

function takeover(record, node, longest) {
  const { detect_us, collect_us, rebuild_us } = record;
  const total = detect_us + collect_us + rebuild_us;
  const when = new Date(record.finished_unix_ms);
  const phases = make("div", { class: "phases", "aria-hidden": "true" });
  for (const [name, us] of [["detect", detect_us], ["collect", collect_us], ["rebuild", rebuild_us]]) {
    const phase = make("i", { class: name, title: `${name}: ${micros(us)}` });
    phase.style.width = (us / longest * 100).toFixed(2) + "%";
    phases.append(phase);
  }
  const steps = [
    detect_us ? `owner missed ${micros(detect_us)}` : null, `votes ${micros(collect_us)}`, `table rebuilt ${micros(rebuild_us)}`,
    `announced ${micros(record.announce_us)} after the votes`,
    record.first_forward_us == null ? null : `first packet forwarded ${micros(record.first_forward_us)} after them`,
  ];
  const kept = [
    `${plural(record.connections_known_before, "connection")} known before, ${count(record.connections_rebuilt)} rebuilt`,
    `${count(record.targets_answered)} of ${plural(record.targets_expected, "target")} answered`,
    record.held ? `${plural(record.held, "packet")} held, ${count(record.released)} sent on, ${count(record.expired)} given up` : null,
    record.unowned_ms == null ? null : `nobody owned it for ${span(record.unowned_ms)}`,
  ];
  const join = (parts) => parts.filter(Boolean).join(" · ");
  return make("li", { class: "takeover", "data-vipa": record.vipa },
    make("div", { class: "head" }, make("strong", {}, `${record.vipa}: ${record.predecessor ?? "nobody"} → ${node}`),
      make("span", { class: "cause" }, CAUSES[record.trigger] ?? record.trigger),
      make("time", { datetime: when.toISOString() }, clock(when)), make("span", { class: "total" }, micros(total))),
    phases, make("p", { class: "facts" }, join(steps)), make("p", { class: "facts" }, join(kept)));
}

// ── packets and nodes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const fateRows = new Map();

function isDrop(name) { return name.startsWith("dropped.") || name.startsWith("malformed."); }
function isFate(name) {
  return name === "forwarded" || name === "punted" || name.startsWith("kernel.to") || name.startsWith("kernel.from") || name.startsWith("replied.") || isDrop(name);
}

function drawFates(total) {
  const fates = Object.entries(total).filter(([name, value]) => isFate(name) && value > 0);
  fates.sort(([a, x], [b, y]) => isDrop(a) - isDrop(b) || y - x || (a < b ? -1 : 1));
  $("fates-none").hidden = fates.length > 0;
  const rows = fates.map(([name, value]) => {
    if (!fateRows.has(name)) {
      const rate = make("td", { class: "number" }), all = make("td", { class: "number" });
      fateRows.set(name, { row: make("tr", {}, make("th", { scope: "row" }, name.replace(/[.-]/g, " ")), rate, all), rate, all });
    }
    const { row, rate, all } = fateRows.get(name);
    dress(row, (isDrop(name) ? "drop" : "kept") + ((rates?.[name] ?? 0) > 0 ? " active" : ""));
    say(rate, rateText(rates?.[name]));
    say(all, count(value));
    return row;
  });
  const now = [...$("fates").children];
  if (rows.length !== now.length || rows.some((row, place) => row !== now[place])) $("fates").replaceChildren(...rows);
}

let nodeShape = "";
function drawNodes(status) {
  const loads = new Map(status.vipas.flatMap((vipa) => vipa.targets).filter((target) => target.load).map((target) => [target.address, target.load]));
  const voters = new Set(status.voters);
  const rows = [{ node: status.node, target: null, up: true, me: true }, ...status.links].map((link) => {
    const load = link.target && loads.get(link.target);
    const failing = (load?.checks ?? []).filter((check) => !check.passing).map((check) => check.name);
    const facts = [
      link.target ? `target ${link.target}` : "router", voters.has(link.node) ? "votes" : null,
      load ? `CPU ${Math.round(load.host.cpu_permille / 10)} %, headroom ${load.headroom} of 16` : null,
      load?.intent === "drain" ? "draining" : null, failing.length ? `failing: ${failing.join(", ")}` : null,
    ];
    return { who: link.node, up: link.up, state: link.me ? "answers this page" : link.up ? "linked" : "no link", facts: facts.filter(Boolean).join(" · ") };
  });
  const shape = JSON.stringify(rows);
  if (shape === nodeShape) return;
  nodeShape = shape;
  $("node-list").replaceChildren(...rows.map((row) => make("li", { class: row.up ? "node" : "node down", "data-node": row.who },
    make("span", { class: "who" }, row.who), " ", make("span", { class: "state" }, row.state), make("p", {}, row.facts))));
}

function drawFigures(status, total) {
  say($("cluster"), `Cluster ${status.cluster}`);
  document.title = `${status.cluster} · Vipa`;
  say($("router"), `as ${status.node} sees it, which is up ${span(status.uptime_ms)}`);
  const mine = status.vipas.filter((vipa) => vipa.owner === status.node).length;
  const nobody = status.vipas.filter((vipa) => !vipa.owner).length;
  say($("owned"), `${count(mine)} of ${count(status.vipas.length)}`);
  say($("owned-hint"), nobody ? `${count(nobody)} without an owner` : "all others have another owner");
  if (!nobody && mine === status.vipas.length) say($("owned-hint"), "all of them");
  say($("connections"), count(status.connections));
  say($("connections-hint"), `${(status.connections / Math.max(1, status.capacity) * 100).toFixed(1)} % of the table`);
  const dropped = rates && Object.entries(rates).reduce((sum, [name, rate]) => sum + (isDrop(name) ? rate : 0), 0);
  const droppedAll = Object.entries(total).reduce((sum, [name, value]) => sum + (isDrop(name) ? value : 0), 0);
  const figures = [["received", rates?.received, total.received], ["opened", rates?.["flow.opened"], total["flow.opened"]], ["dropped", dropped, droppedAll]];
  for (const [id, rate, all] of figures) {
    say($(id), rateText(rate));
    say($(id + "-hint"), `${count(all ?? 0)} in all`);
    if (rates) spark(id, rate);
  }
}

// ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

let seen = null;      // when the last answer came
let failures = 0;
let timer = null;
let why = "";
let retryAt = 0;
let last = null;      // the last answers, for the filter

async function ask(path, signal) {
  const response = await fetch(path, { signal, cache: "no-store", headers: { Accept: "application/json" } });
  const text = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(text.detail ?? `HTTP status ${response.status}`);
  return text.data;
}

async function look() {
  clearTimeout(timer);
  const began = Date.now();
  const patience = new AbortController();
  const end = setTimeout(() => patience.abort(), PATIENCE_MS);
  let pause;
  try {
    const names = Object.keys(QUESTIONS);
    const answers = await Promise.all(names.map((name) => ask(QUESTIONS[name], patience.signal)));
    const all = Object.fromEntries(names.map((name, index) => [name, answers[index]]));
    const now = Date.now();
    takeCounters(all.counters.total, now);
    draw(all);
    seen = now;
    failures = 0;
    // An answer of thousands of VIPAs takes its time; three quarters of it are left to everybody else.
    pause = document.hidden ? HIDDEN_MS : Math.max(PERIOD_MS, 3 * (now - began));
  } catch (error) {
    failures += 1;
    why = error.name === "AbortError" ? `no answer within ${PATIENCE_MS / 1000} s` : error instanceof TypeError ? "nothing answers at its address" : error.message;
    pause = Math.min(PERIOD_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS) * (.8 + Math.random() * .4);
    before = rates = null;
  } finally {
    clearTimeout(end);
  }
  retryAt = Date.now() + pause;
  timer = setTimeout(look, pause);
  tick();
}

function draw(all) {
  last = all;
  drawFigures(all.status, all.counters.total);
  drawNotices(all.status, all.health);
  drawVipas(all.status, all.distribution);
  drawTakeovers(all.takeovers.records, all.status);
  drawFates(all.counters.total);
  drawNodes(all.status);
}

/** How old the picture is, said once a second. */
function tick() {
  const lost = failures > 0;
  const name = last?.status.node ?? "The router";
  document.body.classList.toggle("is-lost", lost);
  document.body.classList.toggle("is-live", !lost && seen != null);
  $("lost").hidden = !lost;
  if (!lost) {
    if (seen != null) say($("live-text"), Date.now() - seen < 3000 ? "live" : `${span(Date.now() - seen)} old`);
    return;
  }
  say($("live-text"), "no answer");
  document.title = `⚠ ${name} does not answer · Vipa`;
  const box = $("lost");
  if (!box.firstChild) box.append(make("span"), make("small", { "aria-live": "off" }));
  say(box.firstChild, `${name} does not answer: ${why}.`);
  const age = seen == null ? "Nothing has been seen of it yet." : `What you see is of ${clock(new Date(seen))}, ${span(Date.now() - seen)} ago.`;
  say(box.lastChild, `${age} Next attempt in ${span(retryAt - Date.now())}.`);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
$("filter").addEventListener("input", () => { if (last) drawVipas(last.status, last.distribution); });
$("cards").addEventListener("toggle", () => { if (last) drawVipas(last.status, last.distribution); }, true);
setInterval(tick, 1000);
look();
