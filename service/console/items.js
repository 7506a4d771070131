// What an item looks like: its title, price, brand and text, wherever a shop keeps them; its tile; finding items.

import { get, query } from "./api.js";
import { debounce, h, icon, withStyle } from "./dom.js";

const TITLES = ["title", "name", "product_name", "label"];
const PRICES = ["price", "sale_price", "amount"];
const BRANDS = ["brand", "manufacturer", "author", "artist", "vendor"];
const TEXTS = ["description", "summary", "text", "about", "overview"];
const IMAGES = ["image", "image_url", "image_link", "img", "picture", "thumbnail", "photo"];
const IS_IMAGE = /^https?:\/\/\S+\.(?:avif|gif|jpe?g|png|svg|webp)(?:[?#]\S*)?$/i;
const IS_URL = /^https?:[/]{2}./i;
const TINTS = 6;
const AT_ONCE = 100; // the most ids that GET /items takes

/** Whether the page may load images of other hosts: the address says it, and the page's policy follows the address. */
export const imagesAllowed = new URLSearchParams(location.search).has("images");

export const asText = (value) => (Array.isArray(value) ? value.join(", ") : String(value));

function first(attributes, names) {
  const lower = new Map(Object.keys(attributes).map((name) => [name.toLowerCase(), name]));
  const found = names.find((name) => lower.has(name) && asText(attributes[lower.get(name)]).trim());
  return found && lower.get(found);
}

/** The parts of an item that a card shows: strings, empty where there is none. */
export function describe({ item_id: id, attributes = {} }) {
  const title = first(attributes, TITLES);
  const text = first(attributes, TEXTS);
  const named = (name) => (name ? asText(attributes[name]) : "");
  const shownTitle = named(title) || named(Object.keys(attributes)[0]) || id || "Untitled";
  const price = first(attributes, PRICES);
  return {
    title: shownTitle,
    price: price ? readable(attributes[price]) : "",
    brand: named(first(attributes, BRANDS)),
    text: named(text),
    image: imageOf(attributes),
  };
}

/** A value as a reader expects it: "0.85 GBP" as £0.85; what is no price stays as it is. */
export function readable(value) {
  const parts = /^(\d+(?:\.\d+)?)\s*([A-Z]{3})$/.exec(asText(value).trim());
  if (!parts) return asText(value);
  try {
    return Number(parts[1]).toLocaleString("en-GB", { style: "currency", currency: parts[2] });
  } catch {
    return asText(value);
  }
}

export function imageOf(attributes) {
  const values = Object.entries(attributes).map(([name, value]) => [name.toLowerCase(), Array.isArray(value) ? value[0] : value]);
  const found =
    values.find(([name, value]) => IMAGES.includes(name) && IS_URL.test(value)) ??
    values.find(([, value]) => IS_IMAGE.test(value));
  return found ? String(found[1]) : "";
}

const hash = (text) => [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);

/** A picture of the item: its image where that is allowed, else the first letter of its title. */
export function tile(item) {
  const { title, image } = describe(item);
  if (image && imagesAllowed) {
    return h("img.tile", { src: image, alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
  }
  const words = title.match(/[\p{L}\p{N}]+/gu) ?? [];
  const letters = words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
  return h("span", { class: `tile tint${hash(words[words.length - 1]?.toLowerCase() ?? title) % TINTS}`, "aria-hidden": "true" }, item.item_id === undefined ? icon("text") : letters || "–");
}

/** Price, brand and id, as one line. */
export function meta(item, ...more) {
  const { price, brand } = describe(item);
  return h("span.meta", { dir: "auto" },
    price && h("span.price", price),
    brand && h("span", brand),
    h("span.id", item.item_id ?? "not in the catalogue"),
    more.map((text) => h("span", text)),
  );
}

// --- reading ---

const known = new Map();
const MOST_KNOWN = 5000;

export function remember(items) {
  for (const item of items) known.set(item.item_id, item);
  for (const id of known.keys()) {
    if (known.size <= MOST_KNOWN) break;
    known.delete(id);
  }
  return items;
}

export const forget = (id) => known.delete(id);

/** The items of these ids; what is in no catalogue has no attributes. */
export async function itemsOf(ids, signal) {
  const missing = [...new Set(ids)].filter((id) => !known.has(id));
  for (let at = 0; at < missing.length; at += AT_ONCE) {
    const { items } = await get(`items${query({ id: missing.slice(at, at + AT_ONCE) })}`, signal);
    remember(items);
  }
  return ids.map((id) => known.get(id) ?? { item_id: id, attributes: {}, gone: true });
}

export async function findItems(values, signal) {
  return remember((await get(`items${query(values)}`, signal)).items);
}

// --- a box that suggests items ---

let boxes = 0;

/**
 * A combobox. `picked(item)` gets an item, or {attributes: {title}} for free text where `allowText` is set;
 * `pasted(lines)` gets several lines at once.
 */
export function itemPicker({ label, placeholder, picked, pasted, signal, allowText = true }) {
  const id = `picker-${(boxes += 1)}`;
  let options = [];
  let active = -1;
  let newest = 0;
  const list = h("ul", { id: `${id}-list`, role: "listbox", class: "suggestions", hidden: true, "aria-label": label });
  const input = h("input", {
    id,
    type: "search",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    dir: "auto",
    placeholder,
    "aria-label": label,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": `${id}-list`,
  });

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark(at) {
    active = (at + options.length) % options.length;
    [...list.children].forEach((option, row) => option.setAttribute("aria-selected", String(row === active)));
    input.setAttribute("aria-activedescendant", `${id}-${active}`);
    list.children[active]?.scrollIntoView({ block: "nearest" });
  }

  function pick(item) {
    input.value = "";
    options = [];
    close();
    picked(item);
  }

  function option(item, row) {
    const { title } = describe(item);
    const lines = item.item_id === undefined ? [h("span.title", "Use the text ", h("q", title))] : [h("span.title", { dir: "auto" }, title), meta(item)];
    return h(
      "li",
      { id: `${id}-${row}`, role: "option", "aria-selected": "false", onmousedown: (event) => event.preventDefault(), onclick: () => pick(item) },
      tile(item),
      h("span.lines", lines),
    );
  }

  const search = debounce(async () => {
    const words = input.value.trim();
    const run = (newest += 1);
    if (!words) return close();
    let found = [];
    try {
      found = await findItems({ q: words, limit: 8 }, signal);
    } catch (problem) {
      if (problem.status === undefined) throw problem;
    }
    if (run !== newest || signal.aborted || input.value.trim() !== words) return;
    options = allowText ? [...found, { attributes: { title: words } }] : found;
    list.replaceChildren(...options.map(option), ...(options.length ? [] : [h("li.none", "No item has all these words.")]));
    list.hidden = false;
    active = -1;
    input.setAttribute("aria-expanded", "true");
  }, 130);

  input.addEventListener("input", search);
  input.addEventListener("blur", () => setTimeout(close, 120));
  input.addEventListener("paste", (event) => {
    const lines = (event.clipboardData?.getData("text") ?? "").split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
    if (lines.length < 2 || !pasted) return;
    event.preventDefault();
    pasted(lines.slice(0, 50));
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return close();
    if (event.key === "Enter") {
      event.preventDefault();
      if (active >= 0) pick(options[active]);
      else if (input.value.trim() && allowText) pick({ attributes: { title: input.value.trim() } });
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || list.hidden || !options.length) return;
    event.preventDefault();
    mark(active < 0 && step < 0 ? options.length - 1 : active + step);
  });
  return h("div.picker", icon("search"), input, list);
}

/** A cell with a bar of [colour, share] in turn. */
export const barCell = (...parts) => h("td.wide", h("span.bar", parts.map(([colour, length]) => share(h("span", { class: `part part${colour}` }), length))));

/** The addresses of an item's page, and of Try with a history of these ids. */
export const itemHref = (id) => `#/items/${encodeURIComponent(id)}`;

export const tryHref = (ids) => `#/try${query({ history: JSON.stringify(ids) })}`;

export const share = (node, value) => withStyle(node, { "--share": String(Math.max(0, Math.min(1, value))) });
