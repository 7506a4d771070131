// Operations: what the service does right now, from its own /metrics, /readyz and jobs.

import { get, metricsText, readyz } from "../api.js";
import { bytes, date, duration, empty, h, madeAt, moment, number, pageHead, panel, plural, problemBox, skeletons, svg } from "../dom.js";
import { share } from "../items.js";
import { currentKey } from "../key.js";
import { keysPanel } from "../keys.js";
import { growth, mean, quantile, Reading } from "../metrics.js";
import { jobTable } from "./models.js";

const POLL = 2000;
const KEPT = 61; // readings: two minutes
const OWN = new Set(["/metrics", "/readyz", "/healthz", "/", "none", "/static", "/reindex"]); // what watching asks for
const work = ({ route }) => !OWN.has(route);
const failed = (labels) => work(labels) && labels.status.startsWith("5");
const refused = (labels) => work(labels) && labels.status === "429";
const STAGES = {
  history: "read the user's history",
  follow: "wait for changes",
  prepare: "plan",
  filter: "filter",
  queue: "wait in the queue",
  encode: "encode",
  search: "search",
  compute: "compute",
  answer: "make the answer",
  explain: "explain",
  read: "read the catalogue",
  write: "write",
};

const readings = []; // kept while other views are shown, so that coming back shows what was

export async function render(main, { signal }) {
  const place = h("div", { class: "stack" }, h("div", { class: "tiles" }, skeletons(6, "tile-skeleton")));
  main.replaceChildren(pageHead("Operations", "Measured by the service itself, read every two seconds.", currentKey() === null && h("a", { class: "button", href: "metrics" }, "Raw metrics")), place);
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  await draw();
  if (signal.aborted) return;
  main.append(keysPanel(signal, (name) => last()?.sum("seqrec_key_requests_total", ({ key }) => key === name)));
  watch();

  async function watch() {
    while (!signal.aborted) {
      await pause();
      if (!signal.aborted) await draw();
    }
  }

  async function pause() {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    else await new Promise((resolve) => (timer = setTimeout(resolve, POLL)));
  }

  async function draw() {
    try {
      const [text, state, jobs] = await Promise.all([metricsText(signal), readyz(signal), get("reindex", signal).catch(() => ({ jobs: [] }))]);
      if (signal.aborted) return;
      readings.push(new Reading(text, Date.now()));
      readings.splice(0, Math.max(0, readings.length - KEPT));
      const focused = document.activeElement?.closest?.("[data-keep]")?.dataset.keep;
      place.replaceChildren(ready(state), tiles(), charts(), panel("Checks", checks(state)), h("div", { class: "columns even" }, panel("Latency by stage", stages()), panel("Requests by endpoint", routes())), panel("Search and model", state_(state)), panel("Reindex jobs", jobTable(jobs.jobs)));
      if (focused) place.querySelector(`[data-keep="${focused}"]`)?.focus();
    } catch (problem) {
      if (signal.aborted || problem.name === "AbortError") return;
      const shown = problem.status === undefined ? { title: "The service cannot be reached", advice: "The console keeps trying." } : problem;
      place.replaceChildren(problemBox(shown));
    }
  }
}

const last = () => readings.at(-1);
const pairs = () => readings.slice(1).map((now, at) => [readings[at], now]);

function ready(state) {
  const degraded = state.degraded ?? [];
  const warnings = state.durability_warnings ?? [];
  if (state.status !== "ready") return h("div", { class: "note bad" }, h("b", {}, "Not ready. "), state.detail);
  if (degraded.length) return h("div", { class: "note warn" }, h("b", {}, "Degraded. "), degraded.join("; "));
  return h("div", { class: "note good", title: `snapshot ${state.snapshot}` }, h("b", {}, "Ready. "), `Answers come from the snapshot of ${madeAt(state.snapshot)} and every change since. `, warnings.length ? `Weaker guarantees: ${warnings.join("; ")}` : "Acknowledged writes are on disk.");
}

/** The oldest reading that is kept, if anything was asked since. */
function oldest() {
  const [window, now] = [readings[0], last()];
  return window !== now && growth(window, now, "seqrec_requests_total", work) > 0 ? window : null;
}

const rates = () => pairs().map(([a, b]) => (1000 * growth(a, b, "seqrec_requests_total", work)) / (b.at - a.at));

function tiles() {
  const now = last();
  const queue = now.gauge("seqrec_queue_tokens") ?? 0;
  const lag = now.gauge("seqrec_lag") ?? 0;
  const recent = oldest();
  const since = recent ? "last two minutes" : "since the start";
  const p50 = quantile(recent, now, "seqrec_request_seconds", 0.5, work);
  const errors = growth(recent, now, "seqrec_requests_total", failed);
  const turned = growth(recent, now, "seqrec_requests_total", refused);
  const hits = growth(null, now, "seqrec_cache_lookups_total", ({ result }) => result !== "miss");
  const lookups = growth(null, now, "seqrec_cache_lookups_total");
  return h(
    "div",
    { class: "tiles" },
    figure("Requests", `${number(rates().at(-1) ?? 0, 1)} /s`, `${number(now.sum("seqrec_requests_total", work))} since the start`),
    figure("Latency", duration(p50), `median, ${since}; p95 ${duration(quantile(recent, now, "seqrec_request_seconds", 0.95, work))}`),
    figure("Errors", number(errors), `server errors, ${since}; ${number(turned)} refused (429)`, errors > 0),
    figure("Queue", number(queue), "tokens waiting for the model"),
    figure("Cache", lookups ? `${number((100 * hits) / lookups)} %` : "–", `of user vectors found; ${bytes(now.gauge("seqrec_cache_bytes") ?? 0)} used`),
    figure("Lag", number(lag), "changes not in answers yet", lag > 0),
  );
}

function figure(name, value, note, bad = false) {
  return h("section", { class: `figure${bad ? " bad" : ""}`, "aria-label": name }, h("h2", {}, name), h("p", { class: "value" }, value), h("p", { class: "hint" }, note));
}

function charts() {
  const p95 = pairs().map(([a, b]) => quantile(a, b, "seqrec_request_seconds", 0.95, work));
  return h("div", { class: "columns even" },
    panel("Requests per second", spark(rates(), "Requests per second", (value) => number(value, value < 10 ? 1 : 0))),
    panel("Latency, 95th percentile", spark(p95, "Latency", duration)));
}

/** What the alerts of deploy/prometheus-rules.yml look at, as far as one page can tell, each with what to do. */
function checks(state) {
  const now = last();
  const recent = oldest();
  const value = (name) => now.gauge(name) ?? NaN;
  const age = (name) => (value(name) > 0 ? Date.now() / 1000 - value(name) : NaN);
  const asked = growth(recent, now, "seqrec_requests_total", work);
  const broken = asked ? growth(recent, now, "seqrec_requests_total", failed) / asked : 0;
  const slow = quantile(recent, now, "seqrec_request_seconds", 0.99, ({ route }) => route === "/recommend");
  const changed = value("seqrec_delta_rows") / value("seqrec_snapshot_items");
  const newest = value("seqrec_newest_event_timestamp_seconds");
  const rows = [ // what, how it is, whether it is well, what to do where it is not
    ["Answers requests", state.status === "ready" ? "yes" : "no", state.status === "ready", "Read the reason above and the log. If a new snapshot does not load, go back to an earlier one in Models."],
    ["Known problems", state.degraded?.length ? `${state.degraded.length}` : "none", !state.degraded?.length, "The reasons are above."],
    ["Change log read", ago(age("seqrec_log_read_timestamp_seconds")), !(age("seqrec_log_read_timestamp_seconds") > 10), "Check Redis, or the disk of SEQREC_HOME."],
    ["Changes since the snapshot", Number.isFinite(changed) ? percent(changed) : "–", !(changed > 0.5), "Read jobs/*.log under SEQREC_HOME, then reindex in Models."],
    ["Failed requests", percent(broken), broken <= 0.01, "The log has the reason under the request's id. 503: see above; 504: add workers."],
    ["Slowest 1 % of recommendations", duration(slow), !(slow > 1), "Latency by stage shows where the time goes: a queue needs more workers."],
    ["Newest event", newest > 0 ? date(newest) : "none", !(age("seqrec_newest_event_timestamp_seconds") > 86_400), "Does POST /events answer with 200? Imported history, as in the demo, may be old."],
  ];
  return h("ul", { class: "checklist" }, rows.map(([name, shown, well, action]) => h("li", {}, h("span", { class: `badge ${well ? "quiet-badge" : "warn"}` }, well ? "OK" : "Check"), h("b", {}, name), h("span", { class: "soft" }, shown), !well && h("p", { class: "hint" }, action))));
}

const percent = (share) => `${number(100 * share, 1)} %`;
const ago = (seconds) => (Number.isFinite(seconds) ? `${duration(Math.max(0, seconds))} ago` : "–");

/** A line of at most `KEPT` values, the newest at the right; `write`: a value as text. */
function spark(values, name, write) {
  const [width, height] = [600, 120];
  const known = values.map((value) => (Number.isFinite(value) ? value : 0));
  const highest = Math.max(...known, 0);
  const most = highest || 1;
  const at = (value, row) => [(width * (KEPT - 1 - (known.length - 1 - row))) / (KEPT - 1), height - 2 - (height - 4) * (value / most)].map((one) => one.toFixed(1));
  const points = known.map((value, row) => at(value, row).join(","));
  const attributes = { viewBox: `0 0 ${width} ${height}`, class: "spark", preserveAspectRatio: "none", role: "img", "aria-label": `${name} over the last two minutes` };
  const line = (y) => svg("line", { x1: 0, x2: width, y1: y, y2: y, class: "base" });
  return h("div", { class: "line-chart" }, h("p", { class: "hint" }, known.length ? `highest ${write(highest)}, now ${write(known.at(-1))}` : "The first values come in two seconds."), svg("svg", attributes, line(1), line(height / 2), line(height - 1), svg("polyline", { points: points.join(" ") })), h("p", { class: "hint row spread", "aria-hidden": "true" }, h("span", {}, "2 minutes ago"), h("span", {}, "now")));
}

function stages() {
  const now = last();
  const rows = now
    .values("seqrec_stage_seconds_count", "stage")
    .map((stage) => {
      const where = ({ stage: its }) => its === stage;
      return { stage, mean: mean(null, now, "seqrec_stage_seconds", where), p95: quantile(null, now, "seqrec_stage_seconds", 0.95, where), count: now.sum("seqrec_stage_seconds_count", where) };
    })
    .filter((row) => row.count > 0)
    .sort((a, b) => b.mean - a.mean);
  if (!rows.length) return empty("No request yet", "Stages appear with the first recommendation.");
  const most = Math.max(...rows.map((row) => row.p95));
  return h("table", { class: "figures bars" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Stage"), h("th", { scope: "col" }, h("span", { class: "hidden" }, "Share")), h("th", { scope: "col" }, "mean"), h("th", { scope: "col" }, "p95"))), h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, STAGES[row.stage] ?? row.stage), h("td", { class: "wide" }, h("span", { class: "bar" }, share(h("span", { class: "part part0" }), row.mean / most), share(h("span", { class: "part part2" }), Math.max(0, row.p95 - row.mean) / most))), h("td", {}, duration(row.mean)), h("td", {}, duration(row.p95))))));
}

function routes() {
  const now = last();
  const rows = now
    .values("seqrec_request_seconds_count", "route")
    .filter((route) => work({ route }))
    .map((route) => ({ route, count: now.sum("seqrec_request_seconds_count", (labels) => labels.route === route), p95: quantile(null, now, "seqrec_request_seconds", 0.95, (labels) => labels.route === route) }))
    .sort((a, b) => b.count - a.count)
    .slice(0, 10);
  if (!rows.length) return empty("No request yet", "Recommendations, items and events appear here.");
  const most = Math.max(...rows.map((row) => row.count));
  return h("table", { class: "figures bars" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Endpoint"), h("th", { scope: "col" }, h("span", { class: "hidden" }, "Share")), h("th", { scope: "col" }, "requests"), h("th", { scope: "col" }, "p95"))), h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.route.replace(":path", "")), h("td", { class: "wide" }, h("span", { class: "bar" }, share(h("span", { class: "part part0" }), row.count / most))), h("td", {}, number(row.count)), h("td", {}, duration(row.p95))))));
}

function state_(state) {
  const now = last();
  const count = (name) => number(now.gauge(name) ?? 0);
  const when = (name) => (now.gauge(name) > 0 ? moment(now.gauge(name)) : "–");
  const coverage = now.gauge("seqrec_catalogue_coverage");
  const facts = {
    "Recommendable items": count("seqrec_answerable_items"),
    "Items in the snapshot": count("seqrec_snapshot_items"),
    "Changes since": count("seqrec_delta_rows"),
    "Coverage, last 24 hours": coverage === undefined ? "–" : `${percent(coverage)} of items`,
    "Snapshot made": when("seqrec_snapshot_timestamp_seconds"),
    "Model trained": when("seqrec_model_timestamp_seconds"),
    "Compute threads": count("seqrec_threads"),
    "Catalogue id": (state.catalogue ?? "–").slice(0, 12),
  };
  return h("dl", { class: "facts-grid" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
