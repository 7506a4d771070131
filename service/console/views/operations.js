// Operations: what the service does right now, from its own /metrics, /readyz and jobs.

import { get, metricsText, query, readyz } from "../api.js";
import { lineChart } from "../charts.js";
import { announce, button, bytes, date, duration, empty, facts, figure, fill, h, hint, madeAt, moment, number, pageHead, panel, problemBox, row, skeletons, table } from "../dom.js";
import { filterBuilder } from "../filters.js";
import { barCell } from "../items.js";
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
const STAGES = { // whose names do not say it
  history: "read the user's history",
  follow: "wait for changes",
  prepare: "plan",
  queue: "wait in the queue",
  answer: "make the answer",
  read: "read the catalogue",
};

const readings = []; // kept while other views are shown, so that coming back shows what was

export async function render(main, { signal }) {
  const place = h("div.stack", h("div.tiles", skeletons(6, "tile-skeleton")));
  main.replaceChildren(pageHead("Operations", "Measured by the service itself, read every two seconds.", currentKey() === null && h("a.button", { href: "metrics" }, "Raw metrics")), place);
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  await draw();
  if (signal.aborted) return;
  main.append(recallPanel(signal), keysPanel(signal, (name) => last()?.sum("seqrec_key_requests_total", ({ key }) => key === name)));
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
      place.replaceChildren(ready(state), tiles(), charts(), panel("Checks", checks(state)), h("div.columns.even", panel("Latency by stage", stages()), panel("Requests by endpoint", routes())), panel("Search and model", state_(state)), panel("Reindex jobs", jobTable(jobs.jobs)));
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
  if (state.status !== "ready") return h("div.note.bad", h("b", "Not ready. "), state.detail);
  if (degraded.length) return h("div.note.warn", h("b", "Degraded. "), degraded.join("; "));
  return h("div.note.good", { title: `snapshot ${state.snapshot}` }, h("b", "Ready. "), `Answers come from the snapshot of ${madeAt(state.snapshot)} and every change since. `, warnings.length ? `Weaker guarantees: ${warnings.join("; ")}` : "Acknowledged writes are on disk.");
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
  return h("div.tiles", figure("Requests", `${number(rates().at(-1) ?? 0, 1)} /s`, `${number(now.sum("seqrec_requests_total", work))} since the start`),
    figure("Latency", duration(p50), `median, ${since}; p95 ${duration(quantile(recent, now, "seqrec_request_seconds", 0.95, work))}`),
    figure("Errors", number(errors), `server errors, ${since}; ${number(turned)} refused (429)`, errors > 0),
    figure("Queue", number(queue), "tokens waiting for the model"),
    figure("Cache", lookups ? `${number((100 * hits) / lookups)} %` : "–", `of user vectors found; ${bytes(now.gauge("seqrec_cache_bytes") ?? 0)} used`),
    figure("Lag", number(lag), "changes not in answers yet", lag > 0),
  );
}

function charts() {
  const p95 = pairs().map(([a, b]) => quantile(a, b, "seqrec_request_seconds", 0.95, work));
  return h("div.columns.even", panel("Requests per second", spark(rates(), "Requests per second", (value) => number(value, value < 10 ? 1 : 0))),
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
  return h("ul.checklist", rows.map(([name, shown, well, action]) => h("li", h("span", { class: `badge ${well ? "quiet-badge" : "warn"}` }, well ? "OK" : "Check"), h("b", name), h("span.soft", shown), !well && hint(action))));
}

const percent = (share) => `${number(100 * share, 1)} %`;
const ago = (seconds) => (Number.isFinite(seconds) ? `${duration(Math.max(0, seconds))} ago` : "–");

/** A line of at most `KEPT` values, the newest at the right; `write`: a value as text. */
function spark(values, name, write) {
  const known = values.map((value, at) => [KEPT - values.length + at, Number.isFinite(value) ? value : 0]);
  const told = known.length ? `highest ${write(Math.max(...known.map(([, value]) => value)))}, now ${write(known.at(-1)[1])}` : "The first values come in two seconds.";
  return lineChart(`${name} over the last two minutes`, [known], told, { from: 1, to: KEPT - 1, low: 0, ends: ["2 minutes ago", "now"] });
}

/** How much of what an exact search finds the served one does, among items that pass a filter: on a button, since it costs 100 exact searches. */
function recallPanel(signal) {
  let filter = {};
  const answer = h("div", hint("Finds the ten best for up to 100 items that pass, once as requests are answered and once exactly."));
  const measured = async () => {
    const { items, passing, queries, recall, index } = await get(`recall${query({ filter })}`, signal);
    if (!queries) return empty("Nothing passes the filter", "There is no item to search for.");
    announce(`Recall@10 ${number(recall, 3)}`);
    return facts({ "Recall@10": number(recall, 3), "Items that pass": `${number(passing)} of ${number(items)}`, Selectivity: percent(passing / items), "Searches compared": number(queries), "Index": { flat: "flat (exact)" }[index] ?? index });
  };
  const measure = button("Measure the recall", () => fill(answer, signal, measured, skeletons(2, "row-skeleton")), { kind: "primary" });
  return panel("Recall of the search", h("div.columns.even", filterBuilder({ filter, signal, changed: (now) => (filter = now) }), h("div.stack", h("div.row", measure), answer)));
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
  return table("figures bars", ["Stage", ["Share"], "mean", "p95"], rows.map((one) => row(STAGES[one.stage] ?? one.stage, barCell([0, one.mean / most], [2, Math.max(0, one.p95 - one.mean) / most]), duration(one.mean), duration(one.p95))));
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
  return table("figures bars", ["Endpoint", ["Share"], "requests", "p95"], rows.map((one) => row(one.route.replace(":path", ""), barCell([0, one.count / most]), number(one.count), duration(one.p95))));
}

function state_(state) {
  const now = last();
  const count = (name) => number(now.gauge(name) ?? 0);
  const when = (name) => (now.gauge(name) > 0 ? moment(now.gauge(name)) : "–");
  const coverage = now.gauge("seqrec_catalogue_coverage");
  return facts({
    "Recommendable items": count("seqrec_answerable_items"),
    "Items in the snapshot": count("seqrec_snapshot_items"),
    "Changes since": count("seqrec_delta_rows"),
    "Coverage, last 24 hours": coverage === undefined ? "–" : `${percent(coverage)} of items`,
    "Snapshot made": when("seqrec_snapshot_timestamp_seconds"),
    "Model trained": when("seqrec_model_timestamp_seconds"),
    "Compute threads": count("seqrec_threads"),
    "Catalogue id": (state.catalogue ?? "–").slice(0, 12),
  });
}
