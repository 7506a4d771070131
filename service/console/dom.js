// Elements, icons and the faces of states. Text only ever becomes text nodes, so no text of an item can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element; "p.hint" is a p of the class hint. Its properties may come first: those that begin with "on" are listeners;
 * true, false and null set or leave out an attribute.
 */
export function h(tag, ...children) {
  const properties = children[0]?.constructor === Object ? children.shift() : {};
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value") node.value = value;
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const ICONS = {
  try: "M12 3l1.9 5.1L19 10l-5.1 1.9L12 17l-1.9-5.1L5 10l5.1-1.9zM19 16l.8 2.2L22 19l-2.2.8L19 22l-.8-2.2L16 19l2.2-.8z",
  items: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  users: "M12 12a4 4 0 100-8 4 4 0 000 8zM4 20a8 8 0 0116 0",
  models: "M12 3l8 4.5-8 4.5-8-4.5zM4 12l8 4.5 8-4.5M4 16.5L12 21l8-4.5",
  reports: "M4 20h16M7 16v-5M12 16V5M17 16V9",
  operations: "M3 12h4l3-8 4 16 3-8h4",
  map: "M6 7h.01M10 16h.01M17 6h.01M14 11h.01M19 15h.01M8 12h.01M12 19h.01",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  search: "M11 18a7 7 0 100-14 7 7 0 000 14zM16 16l5 5",
  shuffle: "M4 7h3c5 0 5 10 10 10h3M4 17h3c2 0 3.2-1.7 4.2-3.7M13 10.6C14 8.6 15 7 17 7h3M18 4l3 3-3 3M18 14l3 3-3 3",
  compare: "M9 4v16M15 4v16M4 8h5M15 12h5M4 14h5M15 18h5",
  text: "M5 6h14M12 6v13",
};

export function icon(name) {
  const attributes = { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true", focusable: "false" };
  return svg("svg", attributes, svg("path", { d: ICONS[name] }));
}

export function button(label, onclick, { glyph, kind = "", ...more } = {}) {
  return h("button", { type: "button", class: kind, onclick, ...more }, glyph && icon(glyph), label && h("span", label));
}

/** A button that is an icon alone; `label` is its name. */
export function iconButton(label, glyph, onclick, more = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...more }, icon(glyph));
}

/** Sets a custom property; the style attribute of markup is forbidden by the page's policy. */
export function withStyle(node, properties) {
  for (const [name, value] of Object.entries(properties)) node.style.setProperty(name, value);
  return node;
}

export const debounce = (work, ms) => {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
};

export const number = (value, digits = 0) =>
  Number(value).toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at += 1) count /= 1000;
  return `${count.toFixed(at && count < 10 ? 1 : 0)} ${units[at]}`;
}

export const date = (seconds, options = { dateStyle: "medium" }) => {
  const day = new Date(seconds * 1000);
  return Number.isNaN(day.getTime()) ? String(seconds) : day.toLocaleString("en-GB", { timeZone: "UTC", ...options });
};

/** Day and time of an ISO date or of Unix seconds. */
export const moment = (when) => `${date(typeof when === "number" ? when : Date.parse(when) / 1000, { dateStyle: "medium", timeStyle: "short" })} UTC`;

/** When a snapshot was made, which its id begins with; the id of any other name. */
export function madeAt(id) {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)/.exec(id ?? "");
  return parts ? moment(`${parts.slice(1, 4).join("-")}T${parts.slice(4).join(":")}Z`) : String(id);
}

/** Says something to screen readers. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

// --- the faces of states ---

export function empty(title, text, ...actions) {
  return h("div.state", h("h3", title), text && h("p", text), h("div.row.center", actions));
}

export function problemBox(problem, retry) {
  const lines = [problem.detail, problem.advice].filter((line) => line && line !== problem.title);
  return h("div.problem", { role: "alert" },
    h("strong", problem.title),
    lines.map((line) => h("p", { dir: "auto" }, line)),
    problem.field && !problem.detail?.includes(problem.field) && h("p", "Field: ", code(problem.field)),
    retry && button("Try again", retry),
  );
}

export const skeletons = (count, kind) =>
  Array.from({ length: count }, () => h("div", { class: `skeleton ${kind}`, "aria-hidden": "true" }));

/**
 * Fills `place` with what `work` resolves to. `waiting`: nodes shown meanwhile. A failure shows its reason and a
 * button that tries again; a call of the same place that was overtaken shows nothing.
 */
export async function fill(place, signal, work, waiting = []) {
  const run = Symbol("run");
  place.run = run;
  place.setAttribute("aria-busy", "true");
  if (waiting.length) place.replaceChildren(...waiting);
  try {
    const made = await work();
    if (place.run === run && !signal.aborted) place.replaceChildren(...[made].flat());
  } catch (problem) {
    if (signal.aborted || place.run !== run || problem.name === "AbortError") return;
    if (problem.status === undefined) throw problem;
    place.replaceChildren(problemBox(problem, () => fill(place, signal, work, waiting)));
  } finally {
    if (place.run === run) place.removeAttribute("aria-busy");
  }
}

/** Asks before something is removed or changed for everybody; resolves to whether it was confirmed. */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const dialog = openDialog({ "aria-label": title }, () => resolve(dialog.returnValue === "yes"),
      h("h2", title),
      h("p", text),
      h("div.row.end", button("Cancel", () => dialog.close("no")), button(action, () => dialog.close("yes"), { kind: "danger" })));
  });
}

export function pageHead(title, text, ...actions) {
  return h("div.head", h("div", h("h1", { tabindex: "-1" }, title), text && h("p.lead", text)),
    actions.length > 0 && h("div.row", actions),
  );
}

/** Of fields whose text is no prose. */
export const PLAIN = { autocomplete: "off", spellcheck: "false" };
export const code = (text) => h("code", text);
/** Options of a select. `pairs`: [value, label]. */
export const options = (pairs, chosen) => pairs.map(([value, label]) => h("option", { value, selected: value === chosen }, label));
export const hint = (...text) => h("p.hint", text);

/** `kind`: its class; heads in brackets are for screen readers alone; `rows`: as `row` makes them. */
export function table(kind, heads, rows) {
  return h("table", { class: kind }, h("thead", h("tr", heads.map((name) => h("th", { scope: "col" }, Array.isArray(name) ? h("span.hidden", name) : name)))), h("tbody", rows));
}

export const row = (name, ...cells) => h("tr", h("th", { scope: "row", dir: "auto" }, name), cells.map((cell) => (cell?.tagName === "TD" ? cell : h("td", cell))));

/** What may be wider than the page. */
export const scrolled = (label, ...inside) => h("div.scroll", { tabindex: "0", role: "region", "aria-label": label }, inside);

/** A figure of a row of tiles. */
export function figure(name, value, note, bad = false) {
  return h("section", { class: `figure${bad ? " bad" : ""}`, "aria-label": name }, h("h2", name), h("p.value", value), hint(note));
}

export const facts = (values) => h("dl.facts-grid", Object.entries(values).map(([name, value]) => h("div", h("dt", name), h("dd", value))));

export const crumbs = (view, name) => h("p.crumbs", h("a", { href: `#/${view}` }, name));

/** A dialog over the page, removed when it is closed; `close(dialog)` is called then. */
export function openDialog(properties, close, ...inside) {
  const dialog = h("dialog.small", { ...properties, onclose: () => { dialog.remove(); close(dialog); } }, inside);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** `title`: a text, or a text and what stands after it. */
export function panel(title, ...children) {
  const [name] = [title].flat();
  return h("section.panel", { "aria-label": name }, h("h2", title), children);
}
