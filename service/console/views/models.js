// Models: what is served, the snapshots there are, and making a new one.

import { get, post, query } from "../api.js";
import { columnsOf, movesOf } from "../compare.js";
import { announce, bytes, button, confirmed, empty, fill, h, madeAt, moment, number, pageHead, panel, plural, skeletons } from "../dom.js";
import { describe, itemsOf, share } from "../items.js";
import { command } from "../request.js";

const POLL = 700;
const USERS = 10;
const SECOND = "seqrec train --preset sasrec --items ITEMS --interactions EVENTS --out runs/sasrec\nseqrec index build --checkpoint runs/sasrec/checkpoint";
const K = 10;
const INDEXES = { flat: "exact" };
const STATES = { queued: "waiting", running: "running", done: "done", failed: "failed" };

export async function render(main, { signal }) {
  const served = h("div");
  const table = h("div");
  const jobs = h("div");
  const evaluation = h("div");
  const pair = h("div", { class: "controls pair" });
  const changes = h("div", { class: "changes" });
  let watching = false;
  const start = button("Reindex now", reindex, { kind: "primary" });
  main.replaceChildren(pageHead("Models", "What answers now, how good it is, and how to go back. A snapshot is the catalogue as one model encoded it.", start), served, panel("Evaluation", evaluation), panel("Snapshots", table), panel("What changed between two models", pair, changes), panel("Reindex jobs", jobs));
  const draw = () => Promise.all([
    fill(table, signal, snapshots, served.childElementCount ? [] : skeletons(3, "row-skeleton")),
    fill(jobs, signal, async () => jobTable((await get("reindex", signal)).jobs)),
  ]);
  if (!served.childElementCount) served.replaceChildren(h("div", { class: "skeleton panel-skeleton" }));
  await Promise.all([draw(), fill(evaluation, signal, figures, skeletons(4, "row-skeleton"))]);
  watch();

  async function figures() {
    const { markdown } = await get("evaluation", signal);
    if (markdown) {
      const [all, picture] = [blocks(markdown), headline(markdown)];
      return h("div", { class: "markdown" }, picture ? [picture, h("details", {}, h("summary", {}, "All figures"), all)] : all);
    }
    return h("p", { class: "hint" }, "None is in SEQREC_HOME. To show one here: ", h("code", {}, "seqrec evaluate CHECKPOINT --items FILE --interactions FILE --markdown $SEQREC_HOME/evaluation.md"));
  }

  async function snapshots() {
    const { snapshots: all } = await get("snapshots", signal);
    served.replaceChildren(nowServed(all.find((one) => one.served)));
    drawPair(all.filter((one) => !one.problem));
    if (!all.length) return empty("No snapshots", "This process finds none in its SEQREC_HOME. seqrec index build makes the first one.");
    return [
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of snapshots" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["Snapshot", "Model", "Items", "Index", "Recall@10", "Size", ""].map((name) => h("th", { scope: "col" }, name || h("span", { class: "hidden" }, "Actions"))))), h("tbody", {}, all.map(row)))),
      h("p", { class: "hint" }, "Every worker and host follows within a second, and no request fails meanwhile. From the command line: ", h("code", {}, "seqrec index publish ID"), ", or ", h("code", {}, "seqrec index rollback"), "."),
    ];
  }

  function row(one) {
    const state = one.served ? h("span", { class: "badge" }, "served") : one.published ? h("span", { class: "badge quiet-badge" }, "published before") : h("span", { class: "badge warn" }, "never published");
    if (one.problem) return h("tr", {}, h("th", { scope: "row" }, one.id, " ", state), h("td", { colspan: "6", class: "soft" }, one.problem));
    return h("tr", {}, h("th", { scope: "row" }, h("span", {}, moment(one.created)), " ", state, " ", h("code", { class: "soft below" }, one.id)), h("td", {}, one.model, " ", h("code", { class: "soft" }, one.checkpoint.slice(0, 8))), h("td", {}, number(one.items)), h("td", {}, INDEXES[one.index] ?? one.index), h("td", {}, number(one.recall, 3)), h("td", {}, bytes(one.bytes)), h("td", {}, one.served ? null : button("Serve", () => publish(one), { kind: "quiet", "aria-label": `Serve ${one.id}` })));
  }

  /** Which two are compared; at first the served one and the newest of another model, or else the newest other one. */
  function drawPair(all) {
    if (all.length < 2) {
      pair.replaceChildren(h("div", {}, h("p", { class: "hint" }, "There is one snapshot. With a second one, this shows what both recommend to the same users. ", h("code", {}, "seqrec retrain"), " makes one after new events. Or train another model, and index it without serving it:"), command(SECOND)));
      return;
    }
    const after = all.find((one) => one.served) ?? all[0];
    const others = all.filter((one) => one !== after);
    const before = others.find((one) => one.checkpoint !== after.checkpoint) ?? others[0];
    const select = (chosen) => h("select", {}, all.map((one) => h("option", { value: one.id, selected: one === chosen }, `${moment(one.created)} · ${one.model} ${one.checkpoint.slice(0, 8)}${one.served ? " · served" : ""}`)));
    const [from, to] = [select(before), select(after)];
    const run = button(`Compare for ${USERS} users`, () => fill(changes, signal, () => compared(from.value, to.value), [h("p", { class: "hint" }, "Both models are loaded beside the service and asked; this takes some seconds."), ...skeletons(3, "row-skeleton")]), { glyph: "compare" });
    pair.replaceChildren(h("label", { class: "field" }, "Before", from), h("label", { class: "field" }, "After", to), run);
  }

  async function compared(from, to) {
    const { users } = await get(`snapshots/${encodeURIComponent(to)}/changes${query({ since: from, users: USERS, k: K })}`, signal);
    if (!users.length) return empty("No users yet", "Events make users: send them with POST /events, or import a file with seqrec events import.");
    await itemsOf(users.flatMap((user) => [...user.history, ...user.before, ...user.after]), signal);
    const both = users.map((user) => movesOf(user.before, user.after).both);
    const total = users.reduce((all, user) => all + user.after.length, 0);
    const same = users.filter((user) => user.before.join("\n") === user.after.join("\n")).length;
    const told = `${number(both.reduce((all, one) => all + one, 0))} of ${number(total)} recommendations are in both. ${same ? `${plural(same, "user")} of ${users.length} would see no change.` : "Every user would see a change."}`;
    announce(told);
    return [h("p", { class: "moved", role: "status" }, told), ...await Promise.all(users.map((user, row) => changedUser(user, both[row], row === 0)))];
  }

  async function changedUser({ user_id: user, history, before, after }, both, open) {
    const lists = await Promise.all([before, after].map((ids) => itemsOf(ids, signal)));
    const recent = (await itemsOf(history, signal)).map((item) => describe(item).title).reverse();
    const titles = ["Before", "After"];
    return h("details", { class: "changed-user", open },
      h("summary", {}, h("b", { dir: "auto" }, user), h("span", { class: "soft grow", dir: "auto" }, recent.length ? `last: ${recent.slice(0, 2).join(", ")}` : ""), h("span", { class: "bar", "aria-hidden": "true" }, share(h("span", { class: "part part0" }), after.length ? both / after.length : 0)), h("span", { class: "soft" }, `${both} of ${after.length} in both`)),
      columnsOf(lists.map((items, row) => ({ title: "", items })), { names: titles }),
      h("p", { class: "hint" }, h("a", { href: `#/users/${encodeURIComponent(user)}` }, `All about ${user}`)));
  }

  async function publish(one) {
    if (!(await confirmed("Serve this snapshot?", `Everybody is answered from the snapshot of ${moment(one.created)} (${one.model}, ${number(one.items)} items) from now on, with every change of the catalogue since.`, "Serve it"))) return;
    try {
      await post(`snapshots/${encodeURIComponent(one.id)}/publish`, undefined, signal);
      announce(`${one.id} is served from now on.`);
      await draw();
    } catch (problem) {
      await fill(table, signal, () => Promise.reject(problem));
    }
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

function nowServed(one) {
  if (!one) return h("p", { class: "note warn" }, h("b", {}, "Nothing of this home is served. "), "The published snapshot may be on another host, or none was published.");
  const facts = { Model: one.model, Items: number(one.items ?? 0), "Size on disk": bytes(one.bytes ?? 0), Vectors: `${number(one.dim ?? 0)} × ${one.precision}`, Search: INDEXES[one.index] ?? one.index, "Recall@10 of the search": number(one.recall ?? 0, 3) };
  return panel("Served now", h("p", { class: "lead" }, `Made ${moment(one.created)}, with every change of the catalogue since. `, h("code", {}, one.id)), h("dl", { class: "facts-grid" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

const cellsOf = (lines) => lines.filter((line) => !/^[|\s:-]+$/.test(line)).map((line) => line.split("|").slice(1, -1).map((cell) => cell.replaceAll("**", "").trim()));

/** The tables and paragraphs of a report; the best figure of a column of the first table is bold. */
function blocks(markdown) {
  return markdown.split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    if (!lines.every((line) => line.startsWith("|"))) return h("p", { class: "hint" }, lines.join(" ").replaceAll("**", ""));
    const cells = cellsOf(lines);
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, figuresTable(cells));
  });
}

/** The first NDCG of the first table as bars, the best one in the accent; null where there is none. */
function headline(markdown) {
  const table = /(?:^\|.*\n?)+/m.exec(markdown)?.[0] ?? "";
  const [header, ...rows] = cellsOf(table.trim().split("\n"));
  const column = (header ?? []).findIndex((name) => /ndcg/i.test(name));
  const methods = rows.map((row) => ({ name: row[0], value: Number(row[column]) })).filter(({ value }) => Number.isFinite(value));
  if (column < 1 || methods.length < 2) return null;
  const most = Math.max(...methods.map(({ value }) => value));
  const bar = ({ name, value }) => h("tr", { class: value === most ? "best" : "" }, h("th", { scope: "row" }, name), h("td", { class: "wide" }, h("span", { class: "bar" }, share(h("span", { class: `part part${value === most ? 0 : 2}` }), value / (most || 1)))), h("td", {}, number(value, 4)));
  return [
    h("table", { class: "figures bars headline" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Method"), h("th", { scope: "col" }, h("span", { class: "hidden" }, "Share")), h("th", { scope: "col" }, header[column]))), h("tbody", {}, methods.sort((a, b) => b.value - a.value).map(bar))),
    h("p", { class: "hint" }, "How near the top the item is that people really bought next: 1 is always first, 0 never among the first ten."),
  ];
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
    return h("li", {}, h("span", { class: `badge ${{ failed: "bad", done: "quiet-badge" }[job.state] ?? ""}` }, STATES[job.state]), h("code", {}, job.id), progress ? h("span", { class: "progress", role: "progressbar", "aria-label": "Progress", "aria-valuenow": String(Math.round(100 * done)), "aria-valuemin": "0", "aria-valuemax": "100" }, share(h("span", {}), done)) : h("span", { class: "soft grow" }, job.error ?? (job.snapshot ? `made the snapshot of ${madeAt(job.snapshot)}` : "")), h("span", { class: "soft" }, known ? `${number(job.done)} of ${number(job.total)} items` : ""));
  }));
}
