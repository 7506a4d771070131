// Items: search with facets, and the page of one item, where it can be changed, hidden and deleted.

import { get, itemPath, post, Problem, query, remove } from "../api.js";
import { eventChart } from "../charts.js";
import { itemRow, legend, scoreBar } from "../cards.js";
import { PLAIN, announce, button, code, confirmed, crumbs, debounce, empty, fill, h, hint, icon, iconButton, number, options, pageHead, panel, plural, problemBox, skeletons } from "../dom.js";
import { attributesOf, isFacet } from "../filters.js";
import { asText, describe, forget, itemHref, readable, remember, tile, tryHref } from "../items.js";

const SHOWN = 48; // of a page
const FACET_VALUES = 12;
const SIMILAR = 8;
const NEXT = 6;
const USUAL = 8; // attributes that the form of a new item begins with
const DEEP = 200; // places that are looked through for a new item

const mapLink = (item) => h("a.button", { href: `#/map${query({ item: item.item_id })}` }, "Map");

export async function render(main, { rest, query: given, signal }) {
  if (rest[0] === "new" && rest.length === 1 && given.has("add")) return addPage(main, signal);
  if (rest.length) return itemPage(main, rest.join("/"), signal);
  return searchPage(main, given, signal);
}

// --- search ---

async function searchPage(main, given, signal) {
  let filter = {};
  try {
    filter = JSON.parse(given.get("filter") ?? "{}");
  } catch {
    // an address somebody mistyped: without the filter
  }
  const words = h("input", { type: "search", "aria-label": "Words of an item", placeholder: "Search by words of any attribute", ...PLAIN, dir: "auto", value: given.get("q") ?? "" });
  const list = h("div");
  const facets = h("div.facets");
  const status = h("p.hint", { role: "status" });
  main.replaceChildren(
    pageHead("Items", "The catalogue as it is served now.", h("a.button.primary", { href: "#/items/new?add" }, icon("plus"), h("span", "Add an item"))),
    h("form.search", { role: "search", onsubmit: (event) => { event.preventDefault(); update(); } }, icon("search"), words),
    h("div.columns.facets-first", h("aside.side-column", { "aria-label": "Facets" }, facets), h("section.main-column", { "aria-label": "Items found" }, status, list)),
  );
  words.addEventListener("input", debounce(update, 180));
  facets.replaceChildren(...skeletons(2, "facet-skeleton"));
  await update();

  async function update() {
    history.replaceState(null, "", `${location.search}#/items${query({ q: words.value.trim(), filter })}`);
    await Promise.all([
      fill(list, signal, found, list.childElementCount ? [] : [h("ul.item-rows", skeletons(10, "row-skeleton"))]),
      fill(facets, signal, drawFacets),
    ]);
  }

  async function found() {
    const wanted = { q: words.value.trim(), filter, limit: SHOWN, paginate: true };
    const list = h("ul.item-rows.panel.two");
    const more = h("div.row.center");

    /** The next page below what is shown; the place goes on where it was, whatever comes and goes meanwhile. */
    async function page(cursor) {
      const { items, next } = await get(`items${query({ ...wanted, cursor })}`, signal);
      list.append(...remember(items).map((item) => itemRow(item, { side: item.available ? null : h("span.badge.warn", "hidden") })));
      const shown = list.childElementCount;
      status.textContent = next ? `${plural(shown, "item")}, those with most events first` : `All ${plural(shown, "item")}`;
      if (cursor) {
        announce(status.textContent);
        list.children[shown - items.length]?.querySelector("a").focus();
      }
      return next ? button(`Show ${SHOWN} more`, () => fill(more, signal, () => page(next), [hint("Loading …")])) : "";
    }
    more.append(await page());
    if (!list.childElementCount) {
      return empty("No item was found", "None has all these words and passes the filter.", button("Search everything", () => { words.value = ""; filter = {}; update(); }, { kind: "primary" }));
    }
    return [list, more];
  }

  async function drawFacets() {
    const { items, read, attributes } = await attributesOf(filter, FACET_VALUES, signal);
    const chosen = Object.entries(filter).flatMap(([name, values]) => (Array.isArray(values) ? values : []).map((value) => ({ name, value })));
    const shown = attributes.filter((one) => isFacet(one) && one.type !== "number");
    const box = (name, { value, count }) =>
      h("label.check", h("input", { type: "checkbox", checked: chosen.some((one) => one.name === name && one.value === value), onchange: (event) => toggle(name, value, event.target.checked) }), h("span", { dir: "auto" }, readable(value)), h("span.count", number(count)));
    return [
      hint(`${chosen.length ? "Filtered" : "The whole catalogue"}: ${plural(items, "item")}${read < items ? `, counted in ${number(read)} of them` : ""}`),
      chosen.length > 0 && button("Clear the filter", () => { filter = {}; update(); }, { kind: "link" }),
      shown.map((one) => h("fieldset.facet", h("legend", { dir: "auto" }, one.name), one.values.map((value) => box(one.name, value)), one.distinct > one.values.length && hint(`and ${number(one.distinct - one.values.length)} more values`))),
      numbers(attributes),
      !shown.length && hint("No attribute has values that many items share."),
    ].flat().filter(Boolean);
  }

  function numbers(attributes) {
    return attributes.filter((one) => one.type === "number").map((one) => {
      const bound = (word, edge) => h("input", { type: "number", step: "any", "aria-label": `${word === "gte" ? "Smallest" : "Largest"} ${one.name}`, placeholder: edge, value: filter[one.name]?.[word] ?? "", onchange: (event) => {
        const condition = { ...filter[one.name], [word]: event.target.value === "" ? undefined : Number(event.target.value) };
        if (condition[word] === undefined) delete condition[word];
        filter = { ...filter, [one.name]: condition };
        if (!Object.keys(condition).length) delete filter[one.name];
        update();
      } });
      return h("fieldset.facet", h("legend", { dir: "auto" }, one.name), h("div.row.tight", bound("gte", one.minimum), h("span.soft", "to"), bound("lte", one.maximum)));
    });
  }

  function toggle(name, value, on) {
    const values = [filter[name] ?? []].flat().filter((one) => one !== value);
    if (on) values.push(value);
    filter = { ...filter, [name]: values };
    if (!values.length) delete filter[name];
    update();
  }
}

// --- one item ---

async function itemPage(main, id, signal) {
  const place = h("div.stack");
  main.replaceChildren(crumbs("items", "Items"), h("h1.hidden", { tabindex: "-1" }, id), place);
  await fill(place, signal, draw, [...skeletons(1, "head-skeleton"), ...skeletons(1, "panel-skeleton")]);

  async function draw() {
    let item;
    try {
      item = await get(itemPath(id), signal);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      return empty("There is no such item", `Nothing in the catalogue has the id ${id}.`, h("a.button.primary", { href: "#/items" }, "Search items"));
    }
    remember([item]);
    main.querySelector("h1.hidden")?.remove();
    const { title } = describe(item);
    const similar = h("div");
    const next = h("div");
    const events = h("div");
    const body = [
      h("div.head.item-head", tile(item), h("div", h("h1", { tabindex: "-1", dir: "auto" }, title), h("p.lead", code(item.item_id))), h("div.row", h("a.button", { href: tryHref([item.item_id]) }, icon("try"), h("span", "Try it as a history")), mapLink(item), button(item.available ? "Hide" : "Show again", () => save({ ...item, available: !item.available })), button("Delete", deleteItem, { kind: "danger-quiet" }))),
      searchable(item),
      h("div.columns.wide-side", h("section.main-column", { "aria-label": "The item" }, panel("Attributes", attributeForm({ item, submit: save, label: "Save changes" })), panel("Events over time", events), panel("Recommended after it", next)), h("aside.side-column", panel("Similar items", similar))),
    ];
    fill(similar, signal, () => similarTo({ item_id: id }, signal), skeletons(5, "row-skeleton"));
    fill(next, signal, () => recommendedAfter(id, signal), skeletons(NEXT, "row-skeleton"));
    fill(events, signal, () => eventsOf(id, signal), skeletons(1, "tile-skeleton"));
    return body;
  }

  async function save({ item_id: itemId, attributes, available }) {
    await post("items", { items: [{ item_id: itemId, attributes, available }] }, signal);
    forget(itemId);
    announce("Saved. The next request uses it.");
    await fill(place, signal, draw);
  }

  async function deleteItem() {
    if (!(await confirmed("Delete this item?", `${id} is taken out of answers and histories.`, "Delete"))) return;
    await fill(place, signal, async () => {
      try {
        await remove(itemPath(id));
      } catch (problem) {
        if (problem.status !== 404) throw problem; // 404: somebody else was faster
      }
      forget(id);
      return empty("Deleted", `${id} is no longer in the catalogue.`, h("a.button.primary", { href: "#/items" }, "All items"));
    });
  }
}

function searchable({ available, searchable: found }) {
  if (found) return h("p.note.good", h("b", "Searchable."), " Answers may contain it.");
  if (!available) return h("p.note.warn", h("b", "Hidden."), " It is not available, so no answer contains it. It still counts in histories.");
  return h("p.note.warn", h("b", "Stored, not searchable."), " The model reads item ids, not text, and this one was not in its training data; or no snapshot is loaded yet. Train again with it, then reindex.");
}

async function similarTo(body, signal) {
  try {
    const { items } = await post("similar", { ...body, k: SIMILAR }, signal);
    remember(items);
    if (!items.length) return hint("There is no other item.");
    return h("ol.item-rows", items.map((item) => itemRow(item)));
  } catch (problem) {
    if (problem.status !== 404 && problem.status !== 422) throw problem;
    return hint(problem.detail ?? problem.title);
  }
}

async function eventsOf(id, signal) {
  try {
    return eventChart(await get(`events${query({ item_id: id })}`, signal));
  } catch (problem) {
    if (problem.status !== 403) throw problem;
    return hint(problem.detail); // a key that may read items, not what users did
  }
}

/** What the model answers to a history of this item alone: mostly what people bought after it. */
async function recommendedAfter(id, signal) {
  const { items, source } = await post("recommend", { history: [id], k: NEXT, explain: true }, signal);
  if (!items.length || source !== "model") return hint("Nothing yet: no event has this item, and the model does not read its text.");
  remember(items);
  return [legend(items) ?? "", h("ol.item-rows", items.map((item) => itemRow(item, { side: h("span.row-end", scoreBar(item, items[0].score)) })))];
}

async function addPage(main, signal) {
  const done = h("div");
  const form = h("div");
  main.replaceChildren(crumbs("items", "Items"), pageHead("Add an item", "Its text is enough: the next request can recommend it."), h("div.columns.even", panel("New item", form), done));
  await fill(form, signal, async () => {
    const { attributes } = await attributesOf({}, 1, signal);
    const examples = new Map(attributes.map(({ name, type, values: [most] }) => [name, type === "list" ? "" : most?.value]));
    const usual = attributes.filter((one, row) => row < USUAL).map(({ name, type }) => [name, { number: NaN, list: [] }[type] ?? ""]);
    return attributeForm({ item: { item_id: "", attributes: Object.fromEntries(usual.length ? usual : [["title", ""]]), available: true }, isNew: true, examples, submit, label: "Add the item" });
  }, skeletons(4, "row-skeleton"));
  main.querySelector("#item-id")?.focus();

  async function submit(item) {
    const answer = await post("items", { items: [item] }, signal);
    forget(item.item_id);
    remember([item]);
    const verb = answer.created ? "Added" : "Replaced";
    announce(`${verb} ${item.item_id}`);
    const similar = h("div");
    const place = h("div");
    done.replaceChildren(panel(`${verb}: ${describe(item).title}`, h("div.stack", !answer.searchable && h("p.note.warn", answer.detail), h("div.row", h("a.button.primary", { href: itemHref(item.item_id) }, "Open it"), h("a.button", { href: tryHref([item.item_id]) }, "Try it as a history"), mapLink(item)), place, h("section", h("h3", "Most similar"), similar))));
    await fill(similar, signal, () => similarTo({ attributes: item.attributes, exclude: [item.item_id] }, signal), skeletons(4, "row-skeleton"));
    await fill(place, signal, () => placeAfter(item, signal));
  }
}

/** Where the item stands among what is recommended after the one that is most like it. */
async function placeAfter(item, signal) {
  const { items: [like] } = await post("similar", { attributes: item.attributes, k: 1, exclude: [item.item_id] }, signal);
  if (!like) return "";
  const history = [like.item_id];
  const { items } = await post("recommend", { history, k: DEEP, fields: [] }, signal);
  const row = items.findIndex((one) => one.item_id === item.item_id);
  const where = row < 0 ? `not among the first ${items.length}` : `at place ${row + 1}`;
  return h("p.hint", { role: "status" }, "Recommended after ", h("a", { href: tryHref(history) }, describe(like).title), ` ${where}. It rises as people view or buy it.`);
}

/** The form of an item's attributes. `submit(item)` may raise a Problem, which is shown at the field it names. */
function attributeForm({ item, isNew = false, examples = new Map(), submit, label }) {
  const id = h("input", { id: "item-id", required: true, maxlength: "256", spellcheck: "false", value: item.item_id });
  const available = h("input", { type: "checkbox", checked: item.available });
  const rows = h("div.attribute-rows");
  const problems = h("div");
  for (const [name, value] of Object.entries(item.attributes)) rows.append(attributeRow(name, value));
  const form = h("form.attribute-form", { onsubmit: send },
    isNew && h("label.field", h("span", "Id"), id, h("span.hint", "An id that is there already is replaced.")),
    rows,
    h("div.row.spread", button("Another attribute", () => {
      rows.append(attributeRow("", ""));
      rows.lastElementChild.querySelector("input").focus();
    }, { kind: "quiet", glyph: "plus" }), h("label.check", available, h("span", "Available"))),
    problems,
    h("div.row", h("button.primary", { type: "submit" }, label)),
  );
  return form;

  function attributeRow(name, value) {
    const type = Array.isArray(value) ? "list" : typeof value === "number" ? "number" : "text";
    const label = name || "new attribute";
    const row = h("div.attribute-row", h("input.name", { value: name, placeholder: "name", "aria-label": "Name of the attribute", spellcheck: "false" }),
      h("select.type", { "aria-label": `Type of ${label}` }, options(["text", "number", "list"].map((one) => [one, one]), type)),
      h("textarea.value", { rows: String(Math.min(6, 1 + Math.floor(asText(value).length / 60))), dir: "auto", "aria-label": `Value of ${label}`, value: Array.isArray(value) ? value.join("\n") : Number.isNaN(value) ? "" : String(value), placeholder: type === "list" ? "one a line" : examples.get(name) ? `such as ${asText(examples.get(name))}` : null }),
      iconButton(`Remove ${label}`, "close", () => {
        row.remove();
        form.querySelector("button").focus();
      }),
    );
    return row;
  }

  function entered() {
    const attributes = Object.create(null); // no name is special
    const inputs = new Map([["item_id", id]]);
    for (const row of rows.children) {
      const [name, type, value] = [".name", ".type", ".value"].map((part) => row.querySelector(part));
      if (!value.value.trim() && (isNew || !name.value)) continue; // left empty
      const field = `attributes.${name.value}`;
      if (inputs.has(field)) throw new Problem(0, "The same attribute twice", { detail: `There are two named ${name.value}.`, field });
      inputs.set(field, value);
      if (type.value === "number" && !Number.isFinite(Number(value.value.trim() || NaN))) throw Object.assign(new Problem(0, "Not a number", { detail: `${value.value || "Nothing"} is not a number; is ${name.value} a text?`, field }), { inputs });
      attributes[name.value] = type.value === "number" ? Number(value.value) : type.value === "list" ? value.value.split("\n").map((line) => line.trim()).filter(Boolean) : value.value;
    }
    return { inputs, made: { item_id: isNew ? id.value.trim() : item.item_id, attributes, available: available.checked } };
  }

  async function send(event) {
    event.preventDefault();
    for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    problems.replaceChildren();
    let inputs = new Map();
    const submitter = form.querySelector("[type=submit]");
    submitter.disabled = true;
    try {
      const { made, ...all } = entered();
      inputs = all.inputs;
      await submit(made);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      problems.replaceChildren(problemBox(problem));
      const blamed = (problem.inputs ?? inputs).get(problem.field?.replace(/^items\[0\]\./, ""));
      blamed?.setAttribute("aria-invalid", "true");
      blamed?.focus();
    } finally {
      submitter.disabled = false;
    }
  }
}
