// Two lists of items next to each other: what moved, what is new and what is gone.

import { itemRow, openItem } from "./cards.js";
import { h, hint } from "./dom.js";
import { describe } from "./items.js";

/** Of two lists of ids: how many are in both, and how many places each of the second one moved up (null: new). */
export function movesOf(before, after) {
  const places = new Map(before.map((id, row) => [id, row]));
  const moves = after.map((id, row) => (places.has(id) ? places.get(id) - row : null));
  return { moves, both: moves.filter((by) => by !== null).length };
}

/** The move of one item in words and colour: `by` places up; null: new. */
export function moveMark(by) {
  if (by === null) return h("span.move.new", "new");
  if (by === 0) return h("span.move.same", "same");
  return h("span", { class: `move ${by > 0 ? "up" : "down"}` }, `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}`, h("span.hidden", ` ${Math.abs(by) === 1 ? "place" : "places"} ${by > 0 ? "up" : "down"}`));
}

/**
 * Two columns. `sides`: two of {title, items}; `end(item, row)`: what a row of side `row` shows after its move;
 * `dialog`: options of `openItem`; `names`: of the sides, for what is not in the other one.
 */
export function columnsOf(sides, { names = ["A", "B"], end = () => null, dialog = {} } = {}) {
  const ids = sides.map(({ items }) => items.map((item) => item.item_id));
  const { moves } = movesOf(...ids);
  const there = new Set(ids[1]);
  const mark = (item, row, place) => (row ? moveMark(moves[place]) : there.has(item.item_id) ? null : h("span.move.gone", `not in ${names[1]}`));
  const column = ({ title, items }, row) => h("section.compare-column", { "aria-label": `Side ${names[row]}` },
    h("h3", h("span.badge", names[row]), " ", title),
    items.length === 0 && hint("Nothing is left to recommend."),
    h("ol.item-rows", items.map((item, place) => itemRow(item, { rank: place + 1, onclick: () => openItem(item, dialog), side: h("span.row-end", mark(item, row, place), end(item, row)) }))));
  return h("div.compare", sides.map(column));
}

/** The item of the second list that moved most: {item, by}; null where nothing moved. */
export function mostMoved(before, after) {
  const { moves } = movesOf(before.map((item) => item.item_id), after.map((item) => item.item_id));
  const best = moves.reduce((top, by, row) => (by !== null && Math.abs(by) > Math.abs(moves[top] ?? 0) ? row : top), -1);
  return best < 0 ? null : { item: after[best], by: moves[best], title: describe(after[best]).title };
}
