// Models: what is served, the snapshots there are, and making a new one.

import { get, post } from "../api.js";
import { announce, bytes, button, date, empty, fill, h, number, pageHead, panel, skeletons } from "../dom.js";
import { share } from "../items.js";

const POLL = 700;
const STATES = { queued: "waiting", running: "running", done: "done", failed: "failed" };

export async function render(main, { signal }) {
  const served = h("div");
  const table = h("div");
  const jobs = h("div");
  const evaluation = h("div");
  let watching = false;
  const start = button("Reindex now", reindex, { kind: "primary" });
  main.replaceChildren(pageHead("Models", "A snapshot is the catalogue as one model encoded it. The service answers from the published one, and from every change since.", start), served, panel("Snapshots", table), panel("Reindex jobs", jobs), panel("Evaluation", evaluation));
  const draw = () => Promise.all([
    fill(table, signal, snapshots, served.childElementCount ? [] : skeletons(3, "row-skeleton")),
    fill(jobs, signal, async () => jobTable((await get("reindex", signal)).jobs)),
  ]);
  if (!served.childElementCount) served.replaceChildren(h("div", { class: "skeleton panel-skeleton" }));
  await Promise.all([draw(), fill(evaluation, signal, figures, skeletons(4, "row-skeleton"))]);
  watch();

  async function figures() {
    const { markdown } = await get("evaluation", signal);
    if (markdown) return h("div", { class: "markdown" }, blocks(markdown));
    return h("p", { class: "hint" }, "None is in SEQREC_HOME. To show one here: ", h("code", {}, "seqrec evaluate CHECKPOINT --items FILE --interactions FILE --markdown $SEQREC_HOME/evaluation.md"));
  }

  async function snapshots() {
    const { snapshots: all } = await get("snapshots", signal);
    served.replaceChildren(nowServed(all.find((one) => one.served)));
    if (!all.length) return empty("No snapshots", "This process finds none in its SEQREC_HOME. seqrec index build makes the first one.");
    return [
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Snapshots" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["Snapshot", "Made", "Model", "Items", "Index", "Recall", "Size"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, all.map(row)))),
      h("p", { class: "hint" }, "To serve an earlier one: ", h("code", {}, "seqrec index rollback"), ", or ", h("code", {}, "seqrec index publish ID"), ". Running services follow within seconds."),
    ];
  }

  function row(one) {
    const state = one.served ? h("span", { class: "badge" }, "served") : one.published ? h("span", { class: "badge quiet-badge" }, "published before") : h("span", { class: "badge warn" }, "never published");
    if (one.problem) return h("tr", {}, h("th", { scope: "row" }, one.id, " ", state), h("td", { colspan: "6", class: "soft" }, one.problem));
    return h("tr", {}, h("th", { scope: "row" }, h("code", {}, one.id), " ", state), h("td", {}, made(one)), h("td", {}, one.model, " ", h("code", { class: "soft" }, one.checkpoint.slice(0, 8))), h("td", {}, number(one.items)), h("td", {}, one.index), h("td", {}, number(one.recall, 3)), h("td", {}, bytes(one.bytes)));
  }

  async function reindex() {
    start.disabled = true;
    try {
      await post("reindex", undefined, signal);
      announce("A reindex has started.");
      await draw();
      watch();
    } catch (problem) {
      await fill(jobs, signal, () => Promise.reject(problem));
    } finally {
      start.disabled = false;
    }
  }

  /** Follows a running job until it ends; then the snapshots are read again. */
  async function watch() {
    if (watching) return;
    watching = true;
    let ran = false;
    while (!signal.aborted) {
      let all = [];
      try {
        ({ jobs: all } = await get("reindex", signal));
      } catch (problem) {
        if (problem.status === undefined) break;
      }
      const running = all.some(({ state }) => state === "queued" || state === "running");
      if (running || ran) jobs.replaceChildren(jobTable(all));
      if (!running) break;
      ran = true;
      await new Promise((resolve) => setTimeout(resolve, POLL));
    }
    watching = false;
    if (ran && !signal.aborted) {
      announce("The reindex has ended.");
      await draw();
    }
  }
}

const made = (one) => date(Date.parse(one.created) / 1000, { dateStyle: "medium", timeStyle: "short" });

function nowServed(one) {
  if (!one) return h("p", { class: "note warn" }, h("b", {}, "Nothing of this home is served. "), "The published snapshot may be on another host, or none was published.");
  const facts = { Model: one.model, Checkpoint: one.checkpoint?.slice(0, 12), Items: number(one.items ?? 0), Dimensions: number(one.dim ?? 0), Metric: one.metric, Precision: one.precision, Index: one.index, "Recall@10 of the index": number(one.recall ?? 0, 3) };
  return panel("Served now", h("p", { class: "lead" }, h("code", {}, one.id), ` · made ${made(one)} UTC, from change ${number(one.seq)}`), h("dl", { class: "facts-grid" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

/** The tables and paragraphs of a report; the best figure of a column of the first table is bold. */
function blocks(markdown) {
  return markdown.split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    if (!lines.every((line) => line.startsWith("|"))) return h("p", { class: "hint" }, lines.join(" ").replaceAll("**", ""));
    const cells = lines.filter((line) => !/^[|\s:-]+$/.test(line)).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, figuresTable(cells));
  });
}

function figuresTable([header, ...rows]) {
  const best = header.map((name, column) => (/ndcg|recall|mrr|hit/i.test(name) ? Math.max(...rows.map((row) => Number(row[column]))) : NaN));
  const cell = (text, column) => h("td", {}, column && Number(text) === best[column] ? h("b", {}, text) : text.replaceAll("**", ""));
  return h("table", { class: "list evaluation" }, h("thead", {}, h("tr", {}, header.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows.map(([name, ...values]) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("**", "")), values.map((text, at) => cell(text, at + 1))))));
}

export function jobTable(jobs) {
  if (!jobs.length) return h("p", { class: "hint" }, "None has run on this host. A reindex encodes what changed and publishes a new snapshot, while requests are answered.");
  return h("ul", { class: "jobs" }, jobs.map((job) => {
    const known = job.total > 0;
    const done = job.state === "done" ? 1 : known ? job.done / job.total : 0;
    const progress = job.state === "running" || job.state === "queued";
    return h("li", {}, h("span", { class: `badge ${{ failed: "bad", done: "quiet-badge" }[job.state] ?? ""}` }, STATES[job.state]), h("code", {}, job.id), progress ? h("span", { class: "progress", role: "progressbar", "aria-label": "Progress", "aria-valuenow": String(Math.round(100 * done)), "aria-valuemin": "0", "aria-valuemax": "100" }, share(h("span", {}), done)) : h("span", { class: "soft grow" }, job.error ?? (job.snapshot ? `made ${job.snapshot}` : "")), h("span", { class: "soft" }, known ? `${number(job.done)} of ${number(job.total)} items` : ""));
  }));
}
