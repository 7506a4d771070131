// Operations: what the service does right now, from its own /metrics, /readyz and jobs.

import { get, metricsText, readyz } from "../api.js";
import { bytes, duration, empty, h, number, pageHead, panel, problemBox, skeletons, svg } from "../dom.js";
import { share } from "../items.js";
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
  main.replaceChildren(pageHead("Operations", "Measured by the service itself, read every two seconds.", h("a", { class: "button", href: "metrics" }, "Raw metrics")), place);
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  await draw();
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
      place.replaceChildren(ready(state), tiles(), h("div", { class: "columns even" }, panel("Latency by stage", stages()), panel("Requests", routes())), panel("Search and model", state_(state)), panel("Reindex jobs", jobTable(jobs.jobs)));
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
  return h("div", { class: "note good" }, h("b", {}, "Ready. "), `Snapshot ${state.snapshot}, change ${number(state.seq)}. `, warnings.length ? `Weaker promises: ${warnings.join("; ")}` : "What is acknowledged is durable.");
}

function tiles() {
  const now = last();
  const window = readings[0] === now ? null : readings[0];
  const rate = pairs().map(([a, b]) => (1000 * growth(a, b, "seqrec_requests_total", work)) / (b.at - a.at));
  const p95 = pairs().map(([a, b]) => quantile(a, b, "seqrec_request_seconds", 0.95, work));
  const queue = readings.map((one) => one.gauge("seqrec_queue_tokens") ?? 0);
  const lag = readings.map((one) => one.gauge("seqrec_lag") ?? 0);
  const recent = window && growth(window, now, "seqrec_requests_total", work) > 0 ? window : null;
  const since = recent ? "last two minutes" : "since the start";
  const p50 = quantile(recent, now, "seqrec_request_seconds", 0.5, work);
  const errors = growth(recent, now, "seqrec_requests_total", failed);
  const turned = growth(recent, now, "seqrec_requests_total", refused);
  const hits = growth(null, now, "seqrec_cache_lookups_total", ({ result }) => result !== "miss");
  const lookups = growth(null, now, "seqrec_cache_lookups_total");
  return h(
    "div",
    { class: "tiles" },
    figure("Requests", `${number(rate.at(-1) ?? 0, 1)} /s`, `${number(now.sum("seqrec_requests_total", work))} since the start`, rate),
    figure("Latency", duration(p50), `median, ${since}; p95 ${duration(quantile(recent, now, "seqrec_request_seconds", 0.95, work))}`, p95),
    figure("Errors", number(errors), `server errors, ${since}; ${number(turned)} refused (429)`, null, errors > 0),
    figure("Queue", number(queue.at(-1)), "tokens of recommendations waiting", queue),
    figure("Cache", lookups ? `${number((100 * hits) / lookups)} %` : "–", `of user vectors found; ${bytes(now.gauge("seqrec_cache_bytes") ?? 0)} used`, null),
    figure("Lag", number(lag.at(-1)), "changes that answers do not contain yet", lag, lag.at(-1) > 0),
  );
}

function figure(name, value, note, series, bad = false) {
  return h("section", { class: `figure${bad ? " bad" : ""}`, "aria-label": name }, h("h2", {}, name), h("p", { class: "value" }, value), h("p", { class: "hint" }, note), series ? spark(series, name) : null);
}

/** A line of at most `KEPT` values, the newest at the right. */
function spark(values, name) {
  const [width, height] = [200, 36];
  const known = values.map((value) => (Number.isFinite(value) ? value : 0));
  const most = Math.max(...known, 1e-9);
  const at = (value, row) => [(width * (KEPT - 1 - (known.length - 1 - row))) / (KEPT - 1), height - 2 - (height - 4) * (value / most)].map((one) => one.toFixed(1));
  const points = known.map((value, row) => at(value, row).join(","));
  const attributes = { viewBox: `0 0 ${width} ${height}`, class: "spark", preserveAspectRatio: "none", role: "img", "aria-label": `${name} over the last two minutes` };
  return svg("svg", attributes, svg("line", { x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "base" }), svg("polyline", { points: points.join(" ") }));
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
  const age = Date.now() / 1000 - (now.gauge("seqrec_log_read_timestamp_seconds") ?? NaN);
  const facts = {
    "Items in the snapshot": number(now.gauge("seqrec_snapshot_items") ?? 0),
    "Changes since": number(now.gauge("seqrec_delta_rows") ?? 0),
    "Replaced or deleted": number(now.gauge("seqrec_tombstones") ?? 0),
    "Log read": Number.isFinite(age) ? `${duration(Math.max(0, age))} ago` : "–",
    "Compute threads": number(now.gauge("seqrec_threads") ?? 0),
    "Tokens computed": number(now.sum("seqrec_batch_tokens_total")),
    "Snapshot swaps": number(now.sum("seqrec_swaps_total")),
    Catalogue: (state.catalogue ?? "–").slice(0, 12),
  };
  return h("dl", { class: "facts-grid" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
