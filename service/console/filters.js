// A filter made of the attributes and values that there are, with the number of items that pass.

import { get, query } from "./api.js";
import { button, debounce, h, hint, iconButton, number, options } from "./dom.js";
import { readable } from "./items.js";

const OPERATORS = {
  any: "is any of",
  not: "is none of",
  all: "has all of",
  range: "is between",
};
const SHOWN = 40; // values offered

/** The attributes of what passes `filter`. */
export const attributesOf = (filter, values, signal) => get(`attributes${query({ filter, values })}`, signal);

/** Whether an attribute's values are worth choosing from: titles are not. */
export const isFacet = (attribute) => attribute.distinct !== null && attribute.values.some(({ count }) => count > 1) && attribute.distinct <= Math.max(20, attribute.count / 2);

/** [{name, operator, values | low, high}] of a filter as the API takes it; what has no row of its own is kept as it is. */
export function rowsOf(filter) {
  return Object.entries(filter).flatMap(([name, condition]) => {
    if (typeof condition !== "object" || Array.isArray(condition)) return [{ name, operator: "any", values: [condition].flat() }];
    const rows = ["any", "all", "not"].filter((word) => word in condition).map((operator) => ({ name, operator, values: [condition[operator]].flat() }));
    const low = condition.gte ?? condition.gt;
    const high = condition.lte ?? condition.lt;
    return low === undefined && high === undefined ? rows : [...rows, { name, operator: "range", low, high }];
  });
}

/** The filter of rows; rows without values say nothing. */
export function filterOf(rows) {
  const filter = {};
  for (const { name, operator, values = [], low, high } of rows) {
    const condition = {};
    if (operator === "range") {
      if (low !== undefined) condition.gte = low;
      if (high !== undefined) condition.lte = high;
    } else if (values.length) condition[operator] = values;
    if (Object.keys(condition).length) filter[name] = { ...filter[name], ...condition };
  }
  for (const [name, condition] of Object.entries(filter)) {
    if (Object.keys(condition).join() === "any") filter[name] = condition.any; // the short form
  }
  return filter;
}

/** The builder. `changed(filter)` is called with each new filter. */
export function filterBuilder({ filter, changed, signal }) {
  let rows = rowsOf(filter);
  let attributes = [];
  const list = h("div.conditions");
  const status = h("p.hint", { role: "status" });
  const problem = h("div");
  const add = h("select", { "aria-label": "Add a condition on an attribute", onchange: () => addRow(add.value) });
  const box = h("div.filter", list, h("div.row", add), status, problem);

  async function count() {
    const now = filterOf(rows);
    try {
      const { items, attributes: left } = await attributesOf(now, 0, signal);
      const all = box.all ?? items;
      status.textContent = Object.keys(now).length ? `${number(items)} of ${number(all)} items pass` : `${number(items)} items, no condition`;
      problem.replaceChildren();
      return left;
    } catch (error) {
      if (error.name === "AbortError") return [];
      if (error.status === undefined) throw error;
      status.textContent = "";
      problem.replaceChildren(h("p.problem", { role: "alert" }, error.detail ?? error.title));
      return [];
    }
  }

  const apply = () => {
    count();
    changed(filterOf(rows));
  };
  const applySoon = debounce(apply, 350);

  function addRow(name) {
    add.value = "";
    const attribute = attributes.find((one) => one.name === name);
    if (!attribute) return;
    rows.push(attribute.type === "number" ? { name, operator: "range" } : { name, operator: "any", values: [] });
    draw();
    list.lastElementChild.querySelector("input, select")?.focus();
  }

  function draw() {
    list.replaceChildren(...rows.map(condition));
    add.replaceChildren(h("option", { value: "" }, rows.length ? "Add another condition …" : "Add a condition …"), ...attributes.map((one) => h("option", { value: one.name }, `${one.name} (${one.type}, ${number(one.count)} items)`)));
  }

  function condition(row) {
    const attribute = attributes.find((one) => one.name === row.name) ?? { name: row.name, type: "text", values: [], distinct: 0 };
    const remove = iconButton(`Remove the condition on ${row.name}`, "close", () => {
      rows = rows.filter((one) => one !== row);
      draw();
      add.focus();
      apply();
    });
    const choices = attribute.type === "number" ? ["range", "any", "not"] : attribute.type === "list" ? ["any", "all", "not"] : ["any", "not"];
    const operator = h("select", { "aria-label": `How ${row.name} is compared`, onchange: () => {
      row.operator = operator.value;
      if (row.operator !== "range") row.values ??= [];
      draw();
      apply();
    } }, options(choices.map((word) => [word, OPERATORS[word]]), row.operator));
    return h("fieldset.condition", h("legend.hidden", row.name), h("div.row.tight", h("b", { dir: "auto" }, row.name), operator, remove), row.operator === "range" ? range(row, attribute) : choice(row, attribute));
  }

  function range(row, attribute) {
    const bound = (key, label, edge) =>
      h("input", { type: "number", step: "any", "aria-label": `${label} of ${row.name}`, placeholder: edge ?? "", value: row[key] ?? "", oninput: (event) => {
        row[key] = event.target.value === "" ? undefined : Number(event.target.value);
        applySoon();
      } });
    return h("div.row.tight", bound("low", "Smallest", attribute.minimum), h("span.soft", "to"), bound("high", "Largest", attribute.maximum));
  }

  function choice(row, attribute) {
    const offered = attribute.values.slice(0, SHOWN);
    const others = row.values.filter((value) => !offered.some((one) => one.value === value)).map((value) => ({ value, count: null }));
    const box = ({ value, count: times }) =>
      h("label.check", h("input", { type: "checkbox", checked: row.values.includes(value), onchange: (event) => {
        row.values = event.target.checked ? [...row.values, value] : row.values.filter((one) => one !== value);
        apply();
      } }), h("span", { dir: "auto" }, readable(value)), times !== null && h("span.count", number(times)));
    const other = h("input", { "aria-label": `Another value of ${row.name}`, placeholder: attribute.values.length ? `such as ${attribute.values[0].value}, then Enter` : "another value, then Enter", dir: "auto", onkeydown: (event) => {
      if (event.key !== "Enter" || !other.value.trim()) return;
      event.preventDefault();
      const value = attribute.type === "number" ? Number(other.value) : other.value.trim();
      if (!row.values.includes(value)) row.values = [...row.values, value];
      draw();
      apply();
    } });
    return h("div", h("div.checks", { role: "group", tabindex: offered.length > 6 ? "0" : null, "aria-label": `Values of ${row.name}` }, [...others, ...offered].map(box)), other);
  }

  (async () => {
    try {
      const all = await attributesOf({}, SHOWN, signal);
      attributes = all.attributes;
      box.all = all.items;
      draw();
      await count();
    } catch (error) {
      if (error.name !== "AbortError" && error.status === undefined) throw error;
      if (error.status !== undefined) problem.replaceChildren(hint("The attributes could not be read."));
    }
  })();
  draw();
  box.clear = () => {
    rows = [];
    draw();
    apply();
  };
  box.append(button("Clear all conditions", () => box.clear(), { kind: "link" }));
  return box;
}
