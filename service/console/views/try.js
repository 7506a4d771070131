// Try: what would be recommended to a shopper, or after any history, with any filter; and two of these side by side.

import { get, post, query, userPath } from "../api.js";
import { legend, productCard, reasonsOf, scoreBar } from "../cards.js";
import { columnsOf, mostMoved, movesOf } from "../compare.js";
import { announce, button, debounce, empty, fill, h, hint, iconButton, madeAt, options, pageHead, panel, plural, skeletons } from "../dom.js";
import { filterBuilder } from "../filters.js";
import { describe, imageOf, imagesAllowed, itemPicker, itemsOf, remember, tile } from "../items.js";
import { rulesForm } from "../placements.js";
import { requestPanel } from "../request.js";

const K = 11; // with the first card twice as wide: 12 places
const SHOPPERS = 6;
const STRIP = 30; // newest events of a shopper that the strip shows
const NAMES = ["A", "B"];

/**
 * One side: `user` while the strip is that user's stored history, `history` as it is shown, oldest first; the other
 * fields are those of the request, empty where it has none.
 */
const side = (user = null, history = [], { filter = {}, placement = "", snapshot = "" } = {}) => ({ user, history, filter, placement, snapshot });
const copyOf = (one) => side(one.user, [...one.history], structuredClone(one));

/** What a side asks the API for. */
function bodyOf({ user, history, filter, placement, snapshot }) {
  const body = user ? { user_id: user } : { history: history.map((item) => item.item_id ?? { attributes: item.attributes }) };
  if (Object.keys(filter).length) body.filter = filter;
  if (placement) body.placement = placement;
  if (snapshot) body.snapshot = snapshot;
  return { ...body, k: K, explain: true };
}

/** Why a request failed; what is no answer of the service is an error of this page. */
function reasonOf(problem) {
  if (problem.status === undefined && problem.name !== "AbortError") throw problem;
  return problem.detail ?? problem.title;
}

async function shopperHistory(user, signal) {
  const { events } = await get(`${userPath(user)}?limit=${STRIP}`, signal);
  return itemsOf(events.map((event) => event.item_id).reverse(), signal);
}

/** The side that the address describes; "2" at the end of its names for the second one. */
async function sideOf(given, suffix, signal) {
  const json = (name) => {
    try {
      return JSON.parse(given.get(name + suffix) ?? "null");
    } catch {
      return null;
    }
  };
  const filter = json("filter");
  const user = given.get(`user${suffix}`);
  const entries = json("history");
  const history = Array.isArray(entries) ? entries : [];
  const items = user ? await shopperHistory(user, signal) : await itemsOf(history.filter((one) => typeof one === "string"), signal);
  const byId = new Map(items.map((item) => [item.item_id, item]));
  const shown = user ? items : history.map((one) => (typeof one === "string" ? byId.get(one) : { attributes: one?.attributes ?? {} }));
  const text = (name) => given.get(name + suffix) ?? "";
  return side(user, shown, { filter: filter && typeof filter === "object" && !Array.isArray(filter) ? filter : {}, placement: text("placement"), snapshot: text("snapshot") });
}

function addressOf(one, suffix) {
  const history = one.history.map((item) => item.item_id ?? { attributes: item.attributes });
  return { [`user${suffix}`]: one.user, [`history${suffix}`]: one.user ? undefined : JSON.stringify(history), [`filter${suffix}`]: one.filter, [`placement${suffix}`]: one.placement, [`snapshot${suffix}`]: one.snapshot };
}

export async function render(main, { query: given, signal }) {
  const shopperRow = h("ul.shoppers", { "aria-label": "Shoppers" });
  const strip = h("ol.strip", { "aria-label": "History, oldest first", "aria-description": "The left and right arrow keys go from item to item", onkeydown: roam, onfocusin: (event) => rove(event.target.closest(".entry")) });
  const historyNote = h("p.hint");
  const results = h("div.results");
  const facts = h("p.facts");
  const answered = h("p.hint.answered");
  const legendPlace = h("div");
  const title = h("h2", { id: "results-title" }, "Recommended next");
  const filterPlace = h("div");
  const filterTitle = h("h2", { id: "filter-title" });
  const placementPlace = h("div");
  const modelPlace = h("div", { hidden: true });
  const request = requestPanel();
  const tabs = h("div.segmented", { role: "group", "aria-label": "Which side is edited", hidden: true });
  const images = h("p.hint", { hidden: true });
  const compareButton = button("Compare", toggleCompare, { glyph: "compare", "aria-pressed": "false" });
  const head = pageHead(
    "What would a shopper want next?",
    "Pick a real shopper, or build a history of your own.",
    button("Surprise me", surprise, { glyph: "shuffle", kind: "primary" }),
    compareButton,
  );
  const add = itemPicker({ label: "Add to the history", placeholder: "Add an item, or any text", picked: addItem, pasted: addLines, signal });

  let sides = [side()];
  let active = 0;
  const now = () => sides[active];

  main.replaceChildren(
    head,
    h("section", { "aria-label": "Shoppers of the data" }, shopperRow),
    h("section.history.panel", { "aria-label": "History" }, h("div.row.spread", h("div.row", h("h2", "History"), tabs, historyNote), h("div.row.grow.end.history-tools", add, button("Clear", clear, { kind: "quiet", "aria-label": "Clear the history" }))), strip),
    h("div.columns", h("section.main-column", { "aria-labelledby": "results-title" }, h("div.row.spread.results-head", title, facts), legendPlace, images, results), h("aside.side-column", { "aria-label": "Filter, placement, model and request" }, h("section.panel", { "aria-labelledby": "filter-title" }, filterTitle, filterPlace), placementPlace, modelPlace, panel("The request", request, answered))),
  );
  shopperRow.replaceChildren(...skeletons(SHOPPERS, "chip-skeleton"));
  strip.replaceChildren(...skeletons(6, "strip-skeleton"));
  results.replaceChildren(h("ul.cards", skeletons(K, "card-skeleton")));

  const afterPause = debounce(recommend, 60);
  const recommendSoon = () => {
    results.setAttribute("aria-busy", "true");
    afterPause();
  };

  // --- shoppers ---

  const shoppers = get(`users${query({ limit: SHOPPERS, events: 3 })}`, signal).then(({ users }) => users);

  async function showShoppers() {
    try {
      const users = await shoppers;
      await itemsOf(users.flatMap(({ events }) => events.map((event) => event.item_id)), signal);
      const chips = await Promise.all(users.map(async ({ user_id: user, events }) => {
        const [last] = await itemsOf([events.at(-1).item_id], signal);
        return h("li", h("button", { type: "button", class: "shopper", "data-user": user, "aria-pressed": "false", onclick: () => pickShopper(user) }, h("b", { dir: "auto" }, user), h("span", { dir: "auto" }, describe(last).title)));
      }));
      shopperRow.replaceChildren(...chips);
      if (!chips.length) shopperRow.replaceChildren(h("li.hint", "No events are stored yet: build a history below, or send events with POST /events."));
      markShopper();
    } catch (problem) {
      const reason = reasonOf(problem);
      if (!signal.aborted) shopperRow.replaceChildren(h("li.hint", `Shoppers could not be read: ${reason}`));
    }
  }

  function markShopper() {
    for (const chip of shopperRow.querySelectorAll("button")) chip.setAttribute("aria-pressed", String(chip.dataset.user === now().user));
  }

  async function pickShopper(user) {
    try {
      sides[active] = side(user, await shopperHistory(user, signal), now());
      changed();
      announce(`The history of shopper ${user}`);
    } catch (problem) {
      historyNote.textContent = reasonOf(problem);
    }
  }

  async function surprise() {
    try {
      const { users } = await get(`users${query({ limit: 1, events: 1 })}`, signal);
      if (users.length) await pickShopper(users[0].user_id);
      else historyNote.textContent = "No events are stored yet, so there is nobody to surprise you with.";
    } catch (problem) {
      historyNote.textContent = reasonOf(problem);
    }
  }

  // --- the history ---

  function edit(change) {
    const one = now();
    one.user = null; // it is no longer what is stored of the shopper
    change(one.history);
    changed();
  }

  function addItem(item) {
    edit((history) => history.push(item));
    announce(`Added ${describe(item).title}`);
    strip.scrollLeft = strip.scrollWidth;
  }

  async function addLines(lines) {
    const items = await itemsOf(lines, signal);
    edit((history) => history.push(...items.map((item, row) => (item.gone ? { attributes: { title: lines[row] } } : item))));
    announce(`Added ${plural(lines.length, "entry", "entries")}`);
  }

  function clear() {
    edit((history) => history.splice(0));
    add.querySelector("input").focus();
  }

  function move(from, to, focus) {
    if (to < 0 || to >= now().history.length) return;
    edit((history) => history.splice(to, 0, ...history.splice(from, 1)));
    const tools = strip.children[to];
    (tools.querySelector(`${focus}:enabled`) ?? tools.querySelector(".icon-button:enabled")).focus(); // at an end one cannot go on
    announce(`Moved to place ${to + 1}`);
  }

  function drop(row) {
    edit((history) => history.splice(row, 1));
    (strip.children[Math.min(row, now().history.length - 1)]?.querySelector(".drop") ?? add.querySelector("input")).focus();
  }

  let dragged = -1;

  function entry(item, row) {
    const name = describe(item).title;
    return h(
      "li",
      {
        class: "entry",
        draggable: "true",
        ondragstart: (event) => {
          dragged = row;
          event.dataTransfer.effectAllowed = "move";
          event.dataTransfer.setData("text/plain", name);
        },
        ondragover: (event) => dragged >= 0 && event.preventDefault(),
        ondrop: (event) => {
          event.preventDefault();
          if (dragged >= 0 && dragged !== row) move(dragged, row, ".drop");
          dragged = -1;
        },
        ondragend: () => (dragged = -1),
      },
      tile(item),
      h("span.lines", h("span.title", { dir: "auto", title: name }, name), h("span.meta", item.item_id === undefined ? "your text" : item.gone ? "not in the catalogue" : item.item_id)),
      h("span.entry-tools", iconButton(`Move ${name} earlier`, "left", () => move(row, row - 1, ".earlier"), { class: "icon-button earlier", disabled: row === 0 }), iconButton(`Move ${name} later`, "right", () => move(row, row + 1, ".later"), { class: "icon-button later", disabled: row === now().history.length - 1 }), iconButton(`Remove ${name}`, "close", () => drop(row), { class: "icon-button drop" })),
    );
  }

  function drawHistory() {
    const { user, history } = now();
    strip.replaceChildren(...history.map(entry), h("li.next", { "aria-hidden": "true" }, history.length ? "next?" : "Empty: what is popular comes next"));
    historyNote.textContent = user ? `Shopper ${user}, ${history.length === STRIP ? `the newest ${STRIP}` : plural(history.length, "event")}` : history.length ? plural(history.length, "item") : "";
    strip.scrollLeft = strip.scrollWidth;
    rove(strip.querySelector(".entry:nth-last-child(2)"));
    markShopper();
  }

  /** Of a long history, Tab stops at one entry only. */
  function rove(stop) {
    if (stop) for (const control of strip.querySelectorAll("button")) control.tabIndex = stop.contains(control) ? 0 : -1;
  }

  function roam(event) {
    const entry = event.target.closest(".entry");
    const next = { ArrowLeft: entry?.previousElementSibling, ArrowRight: entry?.nextElementSibling }[event.key];
    if (!next?.matches(".entry")) return;
    event.preventDefault();
    const same = [...event.target.classList].at(-1);
    (next.querySelector(`.${same}:enabled`) ?? next.querySelector(".drop")).focus();
  }

  // --- filter, request, sides ---

  function drawFilter() {
    const one = now();
    filterTitle.replaceChildren("Only items where", mark());
    filterPlace.replaceChildren(filterBuilder({ filter: one.filter, signal, changed: (filter) => {
      one.filter = filter;
      remembered();
      recommendSoon();
    } }));
  }

  const readPlacements = () => get("placements", signal).then((all) => all.placements, () => []);
  let placements = readPlacements();

  const snapshots = get("snapshots", signal).then((all) => all.snapshots, () => []); // a key of the shop may not read them

  /** Of which side a panel is, while there are two. */
  const mark = () => (sides.length > 1 ? h("span.badge.side-mark", `of ${NAMES[active]}`) : "");

  /** A choice of a field of the request. `pairs`: [value, label]. */
  function choice(label, field, pairs) {
    const one = now();
    const select = h("select", { "aria-label": label, onchange: () => {
      one[field] = select.value;
      remembered();
      recommendSoon();
      rules.show();
      announce(`${label}: ${select.selectedOptions[0].textContent}`);
    } }, options(pairs, one[field]));
    return select;
  }

  const rules = rulesForm(async () => (await placements).find(({ name }) => name === now().placement), (name) => {
    now().placement = name;
    placements = readPlacements();
    remembered();
    recommendSoon();
    return drawPlacement();
  });
  placementPlace.replaceChildren(placementPanel([]));

  /** Named rules, and the models that are loaded; nothing where there are none to choose from. */
  async function drawPlacement() {
    const names = (await placements).map(({ name }) => name);
    const models = (await snapshots).filter((one) => one.answers && !one.served);
    if (signal.aborted) return;
    modelPlace.hidden = !models.length;
    if (!models.length) modelPlace.replaceChildren();
    else modelPlace.replaceChildren(panel(["Model", mark()], choice("Model", "snapshot", [["", "the served one"], ...models.map((one) => [one.id, `${one.model} ${one.checkpoint.slice(0, 8)} · ${madeAt(one.id)}`])]), hint("Snapshots that placements name are loaded beside the served one.")));
    placementPlace.replaceChildren(placementPanel(names));
    rules.show();
  }

  function placementPanel(names) {
    return panel(["Placement", mark()], names.length > 0 && choice("Placement", "placement", [["", "none: the plain ranking"], ...names.map((name) => [name, name])]), hint(names.length ? "Its boosts, pins and filters apply; a filter below replaces its own." : "None is stored yet. A placement is a set of rules that requests name."), rules);
  }

  function toggleCompare() {
    sides = sides.length === 1 ? [sides[0], copyOf(sides[0])] : [sides[active]];
    active = sides.length - 1;
    compareButton.setAttribute("aria-pressed", String(sides.length > 1));
    drawTabs();
    drawFilter();
    drawPlacement();
    changed();
    announce(sides.length > 1 ? "Side B is a copy of A. What you change now is B." : "One side");
  }

  function drawTabs() {
    tabs.hidden = sides.length === 1;
    tabs.replaceChildren(...(sides.length > 1 ? NAMES : []).map((name, row) => h("button", { type: "button", "aria-pressed": String(row === active), onclick: () => {
      active = row;
      drawTabs();
      drawFilter();
      drawPlacement();
      drawHistory();
      request.show(bodyOf(now()));
      tabs.children[row].focus();
    } }, name)));
  }

  function changed() {
    drawHistory();
    remembered();
    recommendSoon();
  }

  /** Keeps the address in step, so that it can be copied. */
  function remembered() {
    request.show(bodyOf(now()));
    const values = sides.reduce((all, one, row) => ({ ...all, ...addressOf(one, row ? "2" : "") }), {});
    history.replaceState(null, "", `${location.search}#/try${query(values)}`);
  }

  // --- results ---

  async function answers() {
    const began = performance.now();
    const all = await Promise.all(sides.map((one) => post("recommend", bodyOf(one), signal)));
    const ms = performance.now() - began;
    for (const { items } of all) remember(items);
    return { all, ms, names: await reasonsOf(all.flatMap(({ items }) => items), signal) };
  }

  function showFacts(answer, ms) {
    const { source, snapshot, unknown, degraded = [] } = answer;
    const told = source === "model" ? [] : ["Popular items: the history has nothing to go by"];
    request.answer(answer);
    answered.textContent = `Answered in ${ms.toFixed(0)} ms from the snapshot of ${madeAt(snapshot)}.`;
    answered.title = `snapshot ${snapshot}`;
    if (unknown?.length) told.push(`Not in the catalogue: ${unknown.slice(0, 3).join(", ")}`);
    facts.dataset.source = source;
    facts.replaceChildren(...[...told, ...degraded].map((text) => h("span", text)));
  }

  async function recommend() {
    await fill(results, signal, async () => {
      try {
        const { all, ms, names } = await answers();
        showFacts(all[0], ms);
        legendPlace.replaceChildren(legend(all.flatMap(({ items }) => items)) ?? "");
        offerImages(all.flatMap(({ items }) => items));
        title.textContent = sides.length > 1 ? "Side by side" : now().user ? `Next for shopper ${now().user}` : now().history.length ? "Recommended next" : "Popular now";
        announce(`${all[0].items.length} recommendations. First: ${all[0].items.length ? describe(all[0].items[0]).title : "none"}`);
        return all.length > 1 ? compared(all, names) : cards(all[0], names);
      } catch (problem) {
        facts.replaceChildren();
        throw problem;
      }
    });
  }

  function cards({ items }, names) {
    if (!items.length) {
      return empty("Nothing is left to recommend", "No item passes the filter, or the history already has all that do.", button("Clear the filter", () => filterPlace.firstChild.clear(), { kind: "primary" }));
    }
    const best = items[0].score;
    return h("ol.cards", { "aria-labelledby": "results-title" }, items.map((item, row) => productCard(item, { rank: row + 1, best, names, add: addItem, large: row === 0 })));
  }

  function offerImages(items) {
    const some = items.some((item) => imageOf(item.attributes));
    images.hidden = !some;
    if (!some) return;
    const search = imagesAllowed ? "" : "?images=1";
    images.replaceChildren(imagesAllowed ? "Images are loaded from the hosts that the items name. " : "The items name images on other hosts, which are not loaded unless you allow it. ", button(imagesAllowed ? "Stop loading them" : "Show images", () => location.assign(`${location.pathname}${search}${location.hash}`), { kind: "link" }));
  }

  function compared([a, b], names) {
    const [before, after] = [a, b].map(({ items }) => items.map((item) => item.item_id));
    const { both } = movesOf(before, after);
    const most = mostMoved(a.items, b.items);
    const told = [`${both} in both`, `${b.items.length - both} new in B`];
    if (both === before.length && both === after.length && !most) told.push("the same so far: change the history, the filter or the placement of B");
    if (most) told.push(`moved most: ${most.title}, ${most.by > 0 ? "up" : "down"} ${Math.abs(most.by)}`);
    const end = (item, row) => scoreBar(item, [a, b][row].items[0].score);
    const columns = columnsOf([a, b].map(({ items }, row) => ({ title: summary(sides[row]), items })), { names: NAMES, end, dialog: { names, add: addItem } });
    return [h("p.moved", { role: "status" }, told.join(" · ")), columns];
  }

  function summary({ user, history, filter, placement, snapshot }) {
    const conditions = Object.keys(filter).length;
    return [user ? `shopper ${user}` : plural(history.length, "item"), conditions ? plural(conditions, "condition") : "no filter", placement, snapshot].filter(Boolean).join(", ");
  }

  // --- begin ---

  const shown = showShoppers();
  if (["user", "history", "filter", "placement", "snapshot"].some((name) => given.has(name))) {
    sides = [await sideOf(given, "", signal)];
    if (given.has("user2") || given.has("history2")) sides.push(await sideOf(given, "2", signal));
    active = sides.length - 1;
    compareButton.setAttribute("aria-pressed", String(sides.length > 1));
  } else {
    const users = await shoppers.catch(() => []);
    const longest = users.filter(({ events }) => events.length > 1)[0] ?? users[0];
    if (longest) sides = [side(longest.user_id, await shopperHistory(longest.user_id, signal))];
  }
  if (signal.aborted) return;
  drawTabs();
  drawFilter();
  drawHistory();
  remembered();
  await Promise.all([recommend(), shown, drawPlacement()]);
}
