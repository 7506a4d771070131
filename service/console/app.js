// The console: everything it does goes through the public HTTP API. Text from items and answers only ever becomes
// text nodes.

import { Problem, call } from "./api.js";

const FOUND = 20; // items the picker shows
const K = 10; // recommendations
const SIMILAR = 5; // neighbours shown of an item that was added

const byId = (id) => document.getElementById(id);

/** @type {{itemId: string | null, attributes: object}[]} oldest first; itemId null: typed, in no catalogue */
const history = [];
/** @type {Map<string, HTMLElement>} the cards of the items added on this page, by item id */
const added = new Map();

/** Runs `work(signal)`; a later call of the same runner aborts the earlier one, whose answer would be out of date. */
function newestOnly(work, problems) {
  let running = new AbortController();
  return async function run() {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    try {
      await work(signal);
      if (!signal.aborted) byId(problems).replaceChildren();
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      showProblem(byId(problems), problem, run);
    }
  };
}

// --- building blocks ---

/** An element; strings among the children become text. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(onClick, attributes, ...children) {
  const node = element("button", { type: "button", ...attributes }, ...children);
  node.addEventListener("click", onClick);
  return node;
}

function showProblem(place, problem, retry) {
  const heading = element("p", {}, element("strong", {}, problem.title));
  const box = element("div", { class: "problem", role: "alert" }, heading);
  for (const text of [problem.detail, problem.advice]) if (text) box.append(element("p", { dir: "auto" }, text));
  if (problem.field && !problem.detail?.includes(problem.field)) {
    box.append(element("p", {}, "Field: ", element("code", {}, problem.field)));
  }
  if (retry) box.append(button(retry, {}, "Try again"));
  place.replaceChildren(box);
}

/** Replaces a list; a focus that was inside stays at its place instead of falling back to the top of the page. */
function replaceList(list, rows, fallback) {
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused < 0) return;
  (rows[Math.min(focused, rows.length - 1)]?.querySelector("button") ?? fallback).focus();
}

const asText = (value) => (Array.isArray(value) ? value.join(", ") : String(value));

function titleOf({ itemId, attributes = {} }) {
  return asText(attributes.title ?? Object.values(attributes)[0] ?? itemId);
}

function detailOf({ itemId, attributes = {} }) {
  const others = Object.entries(attributes).filter(([name]) => name !== "title");
  return [itemId ?? "in no catalogue", ...others.map(([name, value]) => `${name}: ${asText(value)}`)].join(" · ");
}

function describe(entry, isNew = false) {
  const title = element("span", { class: "title", dir: "auto" }, titleOf(entry));
  if (isNew) title.append(element("span", { class: "badge" }, "new"));
  return element("span", {}, title, element("span", { class: "detail", dir: "auto" }, detailOf(entry)));
}

/** A row of the API's answer as a button that puts the item into the history. */
function itemRow({ item_id: itemId, attributes, score }) {
  const entry = { itemId, attributes };
  const row = button(
    () => addToHistory(entry),
    { class: "item" },
    element("span", { class: "hidden" }, "Add to the history: "),
    describe(entry, added.has(itemId)),
  );
  if (score !== undefined) {
    const shown = Number.isInteger(score) ? String(score) : score.toFixed(4); // popularity is a count
    row.append(element("span", { class: "score" }, shown));
  }
  return element("li", {}, row);
}

// --- 1. the picker ---

const search = newestOnly(async (signal) => {
  const words = byId("words").value.trim();
  if (!words) {
    byId("found").replaceChildren();
    byId("found-status").textContent = "";
    return;
  }
  const { data } = await call("GET", `items?${new URLSearchParams({ q: words, limit: FOUND })}`, undefined, signal);
  byId("found").replaceChildren(...data.items.map(itemRow));
  const count = data.items.length;
  byId("found-status").textContent =
    count === 0 ? "No item has all these words." : count < FOUND ? `Found: ${count}` : `The best ${count} are shown.`;
}, "found-problem");

let typing = 0;
byId("words").addEventListener("input", () => {
  byId("add-words").disabled = !byId("words").value.trim();
  clearTimeout(typing);
  typing = setTimeout(search, 150);
});
byId("picker").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});
byId("add-words").addEventListener("click", () => {
  addToHistory({ itemId: null, attributes: { title: byId("words").value.trim() } });
});
byId("picker").parentElement.addEventListener("keydown", (event) => {
  const stops = [byId("words"), ...byId("found").querySelectorAll("button")];
  const at = stops.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || at < 0 || !stops[at + step]) return;
  event.preventDefault();
  stops[at + step].focus();
});

// --- 2. the history ---

function addToHistory(entry) {
  history.push(entry);
  historyChanged();
}

function historyChanged() {
  const rows = history.map((entry, position) => {
    const remove = button(
      () => {
        history.splice(position, 1);
        historyChanged();
      },
      { "aria-label": `Remove ${titleOf(entry)} from the history` },
      "Remove",
    );
    return element("li", {}, describe(entry), remove);
  });
  replaceList(byId("history"), rows, byId("words"));
  byId("clear").hidden = history.length === 0;
  byId("history-hint").textContent = history.length
    ? "Oldest first: the last one counts as the newest."
    : "Empty: what comes next is then what is popular.";
  recommend();
}

byId("clear").addEventListener("click", () => {
  history.length = 0;
  historyChanged();
  byId("words").focus();
});

// --- 3. recommendations ---

const recommend = newestOnly(async (signal) => {
  const list = byId("recommendations");
  list.setAttribute("aria-busy", "true");
  try {
    const entries = history.map(({ itemId, attributes }) => itemId ?? { attributes });
    byId("filter").removeAttribute("aria-invalid");
    const { data, ms } = await call("POST", "recommend", { history: entries, k: K, ...typedFilter() }, signal);
    replaceList(list, data.items.map(itemRow), byId("words"));
    showAnswer(data, ms);
  } catch (problem) {
    if (!signal.aborted) {
      if (problem.field?.startsWith("filter")) byId("filter").setAttribute("aria-invalid", "true");
      list.replaceChildren(); // they would belong to another history than the one shown
      byId("answer").hidden = byId("unknown").hidden = byId("none").hidden = true;
    }
    throw problem;
  } finally {
    if (!signal.aborted) list.removeAttribute("aria-busy");
  }
}, "recommendations-problem");

/** The filter as it goes into a request: nothing where none is typed. */
function typedFilter() {
  const text = byId("filter").value.trim();
  if (!text) return {};
  try {
    return { filter: JSON.parse(text) };
  } catch (error) {
    throw new Problem(0, "The filter is not JSON", { detail: error.message, field: "filter" });
  }
}

let narrowing = 0;
byId("filter").addEventListener("input", () => {
  clearTimeout(narrowing);
  narrowing = setTimeout(recommend, 400); // longer than for words: half a condition is not JSON
});

function showAnswer({ items, source, unknown = [], metric, model, snapshot, seq }, ms) {
  const facts = {
    source: source === "fallback:popular" ? `${source} (nothing in the history to go by)` : source,
    snapshot,
    seq,
    time: `${ms.toFixed(0)} ms, measured here`,
    metric,
    model: String(model).slice(0, 12),
  };
  const terms = Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", { "data-fact": name }, String(value ?? "none"))),
  );
  byId("answer").replaceChildren(...terms);
  byId("answer").hidden = false;
  byId("unknown").textContent = `Not in the catalogue, so not read: ${unknown.join(", ")}`;
  byId("unknown").hidden = unknown.length === 0;
  byId("none").hidden = items.length > 0;
  const first = items.length ? ` First: ${titleOf({ itemId: items[0].item_id, attributes: items[0].attributes })}.` : "";
  byId("recommendations-status").textContent = `${items.length} recommendations, source ${source}.${first}`;
}

// --- an item of one's own ---

let rowsMade = 0;

function addAttributeRow() {
  const [name, value] = ["name", "value"].map((part) => `attribute-${part}-${rowsMade}`);
  rowsMade += 1;
  const row = element(
    "div",
    { class: "attribute" },
    element("div", {}, element("label", { for: name }, "Attribute"), element("input", { id: name, spellcheck: "false" })),
    element("div", {}, element("label", { for: value }, "Value"), element("input", { id: value, dir: "auto" })),
  );
  const remove = () => {
    row.remove();
    byId("more-attributes").focus();
  };
  row.append(button(remove, { "aria-label": "Remove this attribute" }, "Remove"));
  byId("new-attributes").append(row);
  byId(name).focus();
}

/** The inputs of the form by the field that the API would blame, and the item they make. */
function newItem() {
  const inputs = new Map([["item_id", byId("new-id")], ["attributes.title", byId("new-title")]]);
  const attributes = Object.assign(Object.create(null), { title: byId("new-title").value }); // no name is special
  for (const row of byId("new-attributes").children) {
    const [name, value] = row.querySelectorAll("input");
    if (!name.value && !value.value) continue;
    const field = `attributes.${name.value}`;
    if (inputs.has(field)) {
      name.setAttribute("aria-invalid", "true");
      throw new Problem(0, "The same attribute twice", { detail: `There are two named ${name.value}.`, field });
    }
    inputs.set(field, value);
    attributes[name.value] = value.value;
  }
  return { inputs, item: { item_id: byId("new-id").value, attributes } };
}

async function submitItem() {
  const form = byId("new-item");
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  byId("new-problem").replaceChildren();
  byId("new-status").textContent = "Adding the item ...";
  let inputs = new Map();
  try {
    const made = newItem();
    inputs = made.inputs;
    const { data, ms } = await call("POST", "items", { items: [made.item] });
    const verb = data.created ? "Created" : "Replaced";
    byId("new-status").textContent = `${verb} ${made.item.item_id} as change ${data.seq} in ${ms.toFixed(0)} ms.`;
    await showAdded(made.item);
    form.reset();
    byId("new-attributes").replaceChildren();
    catalogueChanged();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    byId("new-status").textContent = "";
    showProblem(byId("new-problem"), problem);
    const blamed = inputs.get(problem.field?.replace(/^items\[0\]\./, ""));
    blamed?.setAttribute("aria-invalid", "true");
    blamed?.focus();
  }
}

async function showAdded(item) {
  const entry = { itemId: item.item_id, attributes: item.attributes };
  const problems = element("div");
  const place = element("p", { class: "hint" });
  const similar = element("ol", { class: "items", "aria-label": `Most similar to ${titleOf(entry)}` });
  const remove = async () => {
    try {
      await call("DELETE", `items/${encodeURIComponent(entry.itemId)}`);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status !== 404) return showProblem(problems, problem); // 404: someone else deleted it
    }
    card.remove();
    added.delete(entry.itemId);
    byId("new-status").textContent = `Deleted ${entry.itemId}.`;
    byId("new-id").focus();
    catalogueChanged();
  };
  const card = element(
    "li",
    { "data-item": entry.itemId },
    describe(entry),
    element(
      "div",
      { class: "buttons" },
      button(() => addToHistory(entry), {}, "Recommend with it in the history"),
      button(remove, { "aria-label": `Delete ${entry.itemId} again` }, "Delete it again"),
    ),
    problems,
    place,
    similar,
  );
  added.get(entry.itemId)?.remove();
  added.set(entry.itemId, card);
  byId("added").prepend(card);
  try {
    const { data } = await call("POST", "similar", { attributes: entry.attributes, k: SIMILAR });
    const at = data.items.findIndex((found) => found.item_id === entry.itemId);
    const where = at < 0 ? `not among the first ${SIMILAR}` : `number ${at + 1}`;
    place.textContent = `Most similar to its text, of the whole catalogue (it is ${where}):`;
    similar.replaceChildren(...data.items.map(itemRow));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showProblem(problems, problem);
  }
}

function catalogueChanged() {
  search();
  recommend();
}

byId("more-attributes").addEventListener("click", addAttributeRow);
byId("new-item").addEventListener("submit", (event) => {
  event.preventDefault();
  submitItem();
});

historyChanged();
