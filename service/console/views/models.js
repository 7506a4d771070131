// Models: what is served, the snapshots there are, and making a new one.

import { get, post, query } from "../api.js";
import { noEvents, runCharts } from "../charts.js";
import { columnsOf, movesOf } from "../compare.js";
import { announce, button, bytes, code, confirmed, duration, empty, facts, fill, h, hint, madeAt, moment, number, options, pageHead, panel, plural, row, scrolled, skeletons, table } from "../dom.js";
import { barCell, describe, itemsOf, share } from "../items.js";
import { command } from "../request.js";

const POLL = 700;
const USERS = 10;
const SECOND = "seqrec train --preset sasrec --items ITEMS --interactions EVENTS --out runs/sasrec\nSEQREC_HOME=HOME seqrec index build --checkpoint runs/sasrec/checkpoint";
const K = 10;
const INDEXES = { flat: "exact" };

export async function render(main, { signal }) {
  const served = h("div");
  const list = h("div");
  const runs = h("div");
  const jobs = h("div");
  const evaluation = h("div");
  const pair = h("div.controls.pair");
  const changes = h("div.changes");
  let watching = false;
  const start = button("Reindex now", reindex, { kind: "primary" });
  main.replaceChildren(pageHead("Models", "What answers now, how good it is, and how to go back. A snapshot is the catalogue as one model encoded it.", start), served, panel("Evaluation", evaluation), panel("Training runs", runs), panel("Snapshots", list), panel("What changed between two models", pair, changes), panel("Reindex jobs", jobs));
  const draw = () => Promise.all([
    fill(list, signal, snapshots, served.childElementCount ? [] : skeletons(3, "row-skeleton")),
    fill(jobs, signal, async () => jobTable((await get("reindex", signal)).jobs)),
  ]);
  if (!served.childElementCount) served.replaceChildren(...skeletons(1, "panel-skeleton"));
  await Promise.all([draw(), fill(evaluation, signal, figures, skeletons(4, "row-skeleton")), fill(runs, signal, trained, skeletons(1, "panel-skeleton"))]);
  watch();

  async function figures() {
    const { markdown } = await get("evaluation", signal);
    if (markdown) {
      const [all, picture] = [blocks(markdown), headline(markdown)];
      return h("div.markdown", picture ? [picture, h("details", h("summary", "All figures"), all)] : all);
    }
    return hint("None is in SEQREC_HOME. To show one here: ", code("seqrec evaluate CHECKPOINT --items FILE --interactions FILE --markdown $SEQREC_HOME/evaluation.md"));
  }

  async function trained() {
    const { runs: all } = await get("runs", signal);
    if (!all.length) return hint("None is below SEQREC_HOME. ", code("seqrec train --out $SEQREC_HOME/runs/NAME"), " makes one that is shown here while it trains.");
    return all.map((one, at) => h("details.changed-user", { open: at === 0 },
      h("summary", h("b", one.path), h("span", { class: `badge ${{ done: "quiet-badge", failed: "bad" }[one.state] ?? "warn"}` }, one.state), h("span.soft.grow", [one.model, one.checkpoint?.slice(0, 8), one.seconds && `trained ${duration(one.seconds)}`].filter(Boolean).join(" · ")), h("span.soft", one.updated ? moment(one.updated) : "")),
      one.problem && hint(one.problem),
      one.curves.length ? runCharts(one) : hint("It has written no figures yet.")));
  }

  async function snapshots() {
    const { snapshots: all } = await get("snapshots", signal);
    served.replaceChildren(nowServed(all.find((one) => one.served)));
    drawPair(all.filter((one) => !one.problem));
    if (!all.length) return empty("No snapshots", "This process finds none in its SEQREC_HOME. seqrec index build makes the first one.");
    return [
      scrolled("Table of snapshots", table("list", ["Snapshot", "Model", "Items", "Index", "Recall@10", "Size", ["Actions"]], all.map(snapshotRow))),
      hint("Every worker and host follows within a second, and no request fails meanwhile. From the command line: ", code("seqrec index publish ID"), ", or ", code("seqrec index rollback"), "."),
    ];
  }

  function snapshotRow(one) {
    const state = one.served ? h("span.badge", "served") : one.published ? h("span.badge.quiet-badge", "published before") : h("span.badge.warn", "never published");
    if (one.problem) return h("tr", h("th", { scope: "row" }, one.id, " ", state), h("td", { colspan: "6", class: "soft" }, one.problem));
    return row([h("span", moment(one.created)), " ", state, " ", h("code.soft.below", one.id)], [one.model, " ", h("code.soft", one.checkpoint.slice(0, 8))], number(one.items), INDEXES[one.index] ?? one.index, number(one.recall, 3), bytes(one.bytes), !one.served && button("Serve", () => publish(one), { kind: "quiet", "aria-label": `Serve ${one.id}` }));
  }

  /** Which two are compared; at first the served one and the newest of another model, or else the newest other one. */
  function drawPair(all) {
    if (all.length < 2) {
      pair.replaceChildren(h("div", hint("With a second snapshot, this shows what both recommend to the same users. ", code("seqrec retrain"), " makes one after new events. Or train another model, and index it without serving it:"), command(SECOND)));
      return;
    }
    const after = all.find((one) => one.served) ?? all[0];
    const others = all.filter((one) => one !== after);
    const before = others.find((one) => one.checkpoint !== after.checkpoint) ?? others[0];
    const select = (chosen) => h("select", options(all.map((one) => [one.id, `${one.model} ${one.checkpoint.slice(0, 8)} · ${moment(one.created)}${one.served ? " · served" : ""}`]), chosen.id));
    const [from, to] = [select(before), select(after)];
    const run = button(`Compare for ${USERS} users`, () => fill(changes, signal, () => compared(from.value, to.value), [hint("Both models are loaded beside the service and asked; this takes some seconds."), ...skeletons(3, "row-skeleton")]), { glyph: "compare" });
    pair.replaceChildren(h("label.field", "Before", from), h("label.field", "After", to), run);
  }

  async function compared(from, to) {
    const { users } = await get(`snapshots/${encodeURIComponent(to)}/changes${query({ since: from, users: USERS, k: K })}`, signal);
    if (!users.length) return noEvents("No users yet");
    await itemsOf(users.flatMap((user) => [...user.history, ...user.before, ...user.after]), signal);
    const both = users.map((user) => movesOf(user.before, user.after).both);
    const total = users.reduce((all, user) => all + user.after.length, 0);
    const same = users.filter((user) => user.before.join("\n") === user.after.join("\n")).length;
    const told = `${number(both.reduce((all, one) => all + one, 0))} of ${number(total)} recommendations are in both. ${same ? `${plural(same, "user")} of ${users.length} would see no change.` : "Every user would see a change."}`;
    announce(told);
    return [h("p.moved", { role: "status" }, told), ...await Promise.all(users.map((user, row) => changedUser(user, both[row], row === 0)))];
  }

  async function changedUser({ user_id: user, history, before, after }, both, open) {
    const lists = await Promise.all([before, after].map((ids) => itemsOf(ids, signal)));
    const recent = (await itemsOf(history, signal)).map((item) => describe(item).title).reverse();
    const titles = ["Before", "After"];
    return h("details.changed-user", { open },
      h("summary", h("b", { dir: "auto" }, user), h("span.soft.grow", { dir: "auto" }, recent.length ? `last: ${recent.slice(0, 2).join(", ")}` : ""), h("span.bar", { "aria-hidden": "true" }, share(h("span.part.part0"), after.length ? both / after.length : 0)), h("span.soft", `${both} of ${after.length} in both`)),
      columnsOf(lists.map((items, row) => ({ title: "", items })), { names: titles }),
      hint(h("a", { href: `#/users/${encodeURIComponent(user)}` }, `All about ${user}`)));
  }

  async function publish(one) {
    if (!(await confirmed("Serve this snapshot?", `Everybody is answered from the snapshot of ${moment(one.created)} (${one.model}, ${number(one.items)} items) from now on, with every change of the catalogue since.`, "Serve it"))) return;
    try {
      await post(`snapshots/${encodeURIComponent(one.id)}/publish`, undefined, signal);
      announce(`${one.id} is served from now on.`);
      await draw();
    } catch (problem) {
      await fill(list, signal, () => Promise.reject(problem));
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
  if (!one) return h("p.note.warn", h("b", "Nothing of this home is served. "), "The published snapshot may be on another host, or none was published.");
  const known = { Model: one.model, Items: number(one.items ?? 0), "Size on disk": bytes(one.bytes ?? 0), Vectors: `${number(one.dim ?? 0)} × ${one.precision}`, Search: INDEXES[one.index] ?? one.index, "Recall@10 of the search": number(one.recall ?? 0, 3) };
  return panel("Served now", h("p.lead", `Made ${moment(one.created)}, with every change of the catalogue since. `, code(one.id)), facts(known));
}

const cellsOf = (lines) => lines.filter((line) => !/^[|\s:-]+$/.test(line)).map((line) => line.split("|").slice(1, -1).map((cell) => cell.replaceAll("**", "").trim()));

/** The tables and paragraphs of a report; the best figure of a column of the first table is bold. */
function blocks(markdown) {
  return markdown.split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    if (!lines.every((line) => line.startsWith("|"))) return hint(lines.join(" ").replaceAll("**", ""));
    const cells = cellsOf(lines);
    return scrolled("Figures", figuresTable(cells));
  });
}

/** The first NDCG of the first table as bars, the best one in the accent; null where there is none. */
function headline(markdown) {
  const found = /(?:^\|.*\n?)+/m.exec(markdown)?.[0] ?? "";
  const [header, ...rows] = cellsOf(found.trim().split("\n"));
  const column = (header ?? []).findIndex((name) => /ndcg/i.test(name));
  const methods = rows.map((row) => ({ name: row[0], value: Number(row[column]) })).filter(({ value }) => Number.isFinite(value));
  if (column < 1 || methods.length < 2) return null;
  const most = Math.max(...methods.map(({ value }) => value));
  const bar = ({ name, value }) => {
    const made = row(name, barCell([value === most ? 0 : 2, value / (most || 1)]), number(value, 4));
    made.className = value === most ? "best" : "";
    return made;
  };
  return [
    table("figures bars headline", ["Method", ["Share"], header[column]], methods.sort((a, b) => b.value - a.value).map(bar)),
    hint("How near the top the item is that people really bought next: 1 is always first, 0 never among the first ten."),
  ];
}

function figuresTable([header, ...rows]) {
  const best = header.map((name, column) => (/ndcg|recall|mrr|hit/i.test(name) ? Math.max(...rows.map((row) => Number(row[column]))) : NaN));
  const cell = (text, at) => (Number(text) === best[at + 1] ? h("b", text) : text);
  return table("list evaluation", header, rows.map(([name, ...values]) => row(name, ...values.map(cell))));
}

export function jobTable(jobs) {
  if (!jobs.length) return hint("None has run on this host. A reindex encodes what changed and publishes a new snapshot, while requests are answered.");
  return h("ul.jobs", jobs.map((job) => {
    const known = job.total > 0;
    const done = job.state === "done" ? 1 : known ? job.done / job.total : 0;
    const progress = job.state === "running" || job.state === "queued";
    return h("li", h("span", { class: `badge ${{ failed: "bad", done: "quiet-badge" }[job.state] ?? ""}` }, job.state === "queued" ? "waiting" : job.state), code(job.id), progress ? h("span.progress", { role: "progressbar", "aria-label": "Progress", "aria-valuenow": String(Math.round(100 * done)), "aria-valuemin": "0", "aria-valuemax": "100" }, share(h("span"), done)) : h("span.soft.grow", job.error ?? (job.snapshot ? `made the snapshot of ${madeAt(job.snapshot)}` : "")), h("span.soft", known ? `${number(job.done)} of ${number(job.total)} items` : ""));
  }));
}
