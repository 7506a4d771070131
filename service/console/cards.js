// A recommended product: a card, the reasons in words, the score as a bar of its parts, and the dialog with all of it.

import { button, h, number, openDialog } from "./dom.js";
import { asText, describe, imagesAllowed, itemHref, itemsOf, meta, share, tile } from "./items.js";

/** The parts of a hybrid's score: how they are named, and what they say of an item of the history. */
const PARTS = {
  "co-occurrence": { name: "bought together", tells: "often follows" },
  words: { name: "words in common", tells: "shares words with" },
  dense: { name: "meaning of the text", tells: "reads like" },
  repeat: { name: "bought before", tells: "was bought before, as" },
  boost: { name: "boosts of the placement" },
  rotate: { name: "shown before, not chosen" },
};
const ORDER = Object.keys(PARTS);

export const partName = (part) => PARTS[part]?.name ?? part;
const partClass = (part) => `part part${ORDER.includes(part) ? ORDER.indexOf(part) : 4}`;

/** Of a list of answers: the names of the items in "because", so that cards can show titles instead of ids. */
export async function reasonsOf(items, signal) {
  const ids = items.flatMap((item) => (item.because ?? []).map((reason) => reason.item_id));
  const found = await itemsOf([...new Set(ids)], signal);
  return new Map(found.map((item) => [item.item_id, item]));
}

/** The score, as long as its share of the best one, in the parts that it is the sum of. */
export function scoreBar(item, best) {
  const bar = h("span.bar", { "aria-hidden": "true" });
  const parts = Object.entries(item.parts ?? {}).filter(([, value]) => value > 0);
  const sum = parts.reduce((all, [, value]) => all + value, 0) || 1;
  const length = best > 0 ? item.score / best : item.score >= best ? 1 : 0;
  if (!parts.length) bar.append(share(h("span.part.part0"), length));
  for (const [part, value] of parts) bar.append(share(h("span", { class: partClass(part), title: `${partName(part)} ${number(value, 2)}` }), (value / sum) * length));
  const shown = Number.isInteger(item.score) ? number(item.score) : number(item.score, Math.abs(item.score) < 1 ? 3 : 2);
  return h("span.score", bar, h("span.score-value", h("span.hidden", "Score "), shown));
}

/** What the colours of the bars mean; nothing where scores have no parts. */
export function legend(items) {
  const parts = ORDER.filter((part) => items.some((item) => (item.parts?.[part] ?? 0) > 0));
  if (!parts.length) return null;
  return h("ul.legend", { "aria-label": "Parts of the score" }, parts.map((part) => h("li", h("span", { class: partClass(part) }), partName(part))));
}

/** "often follows A, shares words with B": the strongest reason of each kind. */
export function why(item, names) {
  const best = new Map();
  for (const reason of item.because ?? []) {
    const kind = reason.part ?? "similarity";
    if (!best.has(kind)) best.set(kind, reason);
  }
  const told = new Map(); // item of the history: what is said of it
  for (const [kind, { item_id: id }] of [...best].slice(0, 2)) {
    told.set(id, [...(told.get(id) ?? []), kind === "similarity" ? "is similar to" : PARTS[kind]?.tells ?? partName(kind)]);
  }
  const clauses = [...told].map(([id, [first, second]], row) => {
    const { title } = describe(names.get(id) ?? { item_id: id });
    return h("span", row ? "; " : "", row ? first : first[0].toUpperCase() + first.slice(1), " ", h("b", { dir: "auto" }, title), second && ` and ${second} it`);
  });
  return clauses.length ? h("p.why", clauses) : null;
}

/** A card. `add(item)` puts it into the history; `large` for the first one. */
export function productCard(item, { rank, best, names, add, large = false, note = null }) {
  const { title, text, image } = describe(item);
  const open = () => openItem(item, { names, add });
  return h(
    "li",
    { class: `card${large ? " large" : ""}${image && imagesAllowed ? " pictured" : ""}`, "data-item": item.item_id },
    h("div.card-top", tile(item),
      h("div.lines", h("h3", h("button", { type: "button", class: "card-title", onclick: open }, h("span.clamp", { dir: "auto" }, title))),
        meta(item),
      ),
      rank && h("span.rank", { "aria-hidden": "true" }, rank),
    ),
    text && h("p.text", { dir: "auto" }, text),
    note,
    why(item, names),
    h("div.card-foot", scoreBar(item, best), add && button("Add", () => add(item), { kind: "quiet", glyph: "plus", "aria-label": `Add ${title} to the history` })),
  );
}

/** The sum that a score is: its parts, and below each what single items of the history add to it. */
function scoreTable(item, names) {
  const amount = (value) => h("td", number(value, 3));
  const line = (label, value) => h("tr.of-part", h("th", { scope: "row", dir: "auto" }, label), amount(value));
  const rows = Object.entries(item.parts).map(([part, value]) => {
    const reasons = (item.because ?? []).filter((reason) => reason.part === part);
    const rest = value - reasons.reduce((all, { score }) => all + score, 0);
    return [
      h("tr.part-row", { "data-part": part }, h("th", { scope: "row" }, h("span", { class: partClass(part) }), partName(part)), amount(value)),
      reasons.map((reason) => line(describe(names.get(reason.item_id) ?? reason).title, reason.score)),
      reasons.length > 0 && Math.abs(rest) >= 0.0005 && line("the rest of the history", rest),
    ];
  });
  return [h("h3", "Score"), h("table.figures", h("tbody", rows), h("tfoot", h("tr", h("th", { scope: "row" }, "Sum"), amount(item.score))))];
}

/** Everything about one recommended item. */
export function openItem(item, { names = new Map(), add = null } = {}) {
  const { title } = describe(item);
  const because = (item.because ?? []).filter((reason) => !reason.part);
  const dialog = openDialog({ class: "item-dialog", "aria-labelledby": "dialog-title", onclick: (event) => event.target === dialog && dialog.close() }, () => {},
    h("div.dialog-body", h("div.card-top", tile(item), h("div.lines", h("h2", { id: "dialog-title", dir: "auto" }, title), meta(item)), button("Close", () => dialog.close(), { kind: "quiet" })),
      item.parts && scoreTable(item, names),
      because.length > 0 && [
        h("h3", "Because of the history"),
        h("table.figures", h("tbody", because.map((reason) => h("tr", h("th", { scope: "row", dir: "auto" }, describe(names.get(reason.item_id) ?? reason).title), h("td.soft", "similarity"), h("td", number(reason.similarity, 3)))))),
      ],
      h("h3", "Attributes"),
      attributeList(item.attributes),
    ),
    h("div.row.end.dialog-foot", h("a.button", { href: itemHref(item.item_id), onclick: () => dialog.close() }, "Open the item"),
      add && button("Add to the history", () => { dialog.close(); add(item); }, { kind: "primary", glyph: "plus" }),
    ),
  );
}

export function attributeList(attributes) {
  return h("dl.attributes", Object.entries(attributes).map(([name, value]) => h("div", h("dt", { dir: "auto" }, name), h("dd", { dir: "auto" }, asText(value)))));
}

/** A narrow row of an item: a tile, the title as a link or button, and what else is given. */
export function itemRow(item, { href = itemHref(item.item_id), onclick, rank, side, note } = {}) {
  const { title } = describe(item);
  const name = onclick ? h("button", { type: "button", class: "card-title", dir: "auto", onclick }, title) : h("a.card-title", { dir: "auto", href }, title);
  return h("li.item-row", { "data-item": item.item_id ?? "" }, rank && h("span.rank", { "aria-hidden": "true" }, rank), tile(item), h("span.lines", name, meta(item), note), side);
}
