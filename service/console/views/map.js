// Map: the catalogue in two dimensions, on a canvas, coloured by an attribute.

import { get, post, query, userPath } from "../api.js";
import { announce, button, h, number, pageHead, panel, plural } from "../dom.js";
import { isFacet } from "../filters.js";
import { asText, describe, itemHref, itemsOf, meta, remember } from "../items.js";

const COLOURS = 7; // .map-dot0 … .map-dot6; the last is for everything else
const BANDS = 5; // of numbers: .map-dot7 … .map-dot11, from little to much
const REACH = 14; // px
const ANSWERS = 10;
const STORED = 50; // newest events of the shopper

/** "0.85 GBP" and 0.85 as 0.85; NaN of what does not begin with a number. */
const leadingNumber = (value) => (typeof value === "number" ? value : Number.parseFloat(value));

export async function render(main, { query: given, signal }) {
  const canvas = h("canvas.map", { tabindex: "0", role: "img", "aria-label": "The catalogue as points" });
  const hover = h("div.map-hover", { "aria-live": "polite" });
  const choice = h("select", { "aria-label": "Colour by", onchange: () => load(choice.value) }, h("option", { value: "" }, "one colour"));
  const key = h("ul.legend", { "aria-label": "Colours" });
  const status = h("p.hint", { role: "status" }, "Reading the map …");
  const dots = Array.from({ length: COLOURS + BANDS }, (_, at) => h("span", { class: `map-dot${at}`, hidden: true }));
  main.replaceChildren(
    pageHead("Map", "Items that lie close together have similar vectors.", h("label.row.tight", h("span.soft", "Colour by"), choice), button("Draw a shopper in", drawShopper, { glyph: "users" })),
    panel("The catalogue", h("div.map-frame", canvas, hover), key, status, dots),
  );
  const item = given.get("item");
  let map = null;
  let colours = [];
  let shopper = null; // {user, history: rows, answers: rows}
  let view = { scale: 1, x: 0, y: 0 };
  let chosen = -1;

  const resize = new ResizeObserver(draw);
  resize.observe(canvas);
  const themes = new MutationObserver(draw);
  themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", draw);
  signal.addEventListener("abort", () => {
    resize.disconnect();
    themes.disconnect();
    scheme.removeEventListener("change", draw);
  });

  let wide, high; // half of the canvas, as `draw` found it
  const place = (row) => [wide + view.x + map.x[row] * (wide - 14) * view.scale, high + view.y - map.y[row] * (high - 14) * view.scale];

  function draw() {
    if (!map || !canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1;
    [wide, high] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    canvas.width = 2 * wide * ratio;
    canvas.height = 2 * high * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const palette = dots.map((dot) => getComputedStyle(dot).backgroundColor);
    const many = map.ids.length > 5000; // squares are drawn faster than discs
    context.globalAlpha = shopper ? 0.28 : 0.8;
    for (let colour = COLOURS + BANDS - 1; colour >= 0; colour -= 1) {
      context.fillStyle = palette[colour];
      context.beginPath();
      for (let row = 0; row < map.ids.length; row += 1) {
        if (colours[row] !== colour) continue;
        const [x, y] = place(row);
        if (many) context.fillRect(x - 1, y - 1, 2, 2);
        else {
          context.moveTo(x + 2, y);
          context.arc(x, y, 2, 0, 7);
        }
      }
      context.fill();
    }
    context.globalAlpha = 1;
    if (shopper) drawPath(context, palette);
    if (chosen >= 0) ring(context, chosen, 8, getComputedStyle(canvas).color);
  }

  /** The history as rings, older ones fainter; the answers as discs with their rank. */
  function drawPath(context, palette) {
    const ink = getComputedStyle(canvas).color;
    shopper.history.forEach((row, at) => {
      context.globalAlpha = 0.25 + (0.75 * (at + 1)) / shopper.history.length;
      ring(context, row, 5, ink);
    });
    context.globalAlpha = 1;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    [...shopper.answers].reverse().forEach(({ row, rank }) => {
      const [x, y] = place(row);
      context.fillStyle = palette[0];
      context.beginPath();
      context.arc(x, y, 9, 0, 7);
      context.fill();
      context.fillStyle = getComputedStyle(canvas).backgroundColor;
      context.fillText(String(rank), x, y + 0.5);
    });
  }

  function ring(context, row, radius, colour) {
    const [x, y] = place(row);
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.stroke();
  }

  /** The point under the pointer; -1 for none. */
  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    let [best, row] = [REACH ** 2, -1];
    for (let at = 0; at < map.ids.length; at += 1) {
      const [x, y] = place(at);
      const distance = (x - left) ** 2 + (y - top) ** 2;
      if (distance < best) [best, row] = [distance, at];
    }
    return row;
  }

  async function point(row) {
    if (row === chosen) return;
    chosen = row;
    draw();
    if (row < 0) {
      hover.replaceChildren();
      return;
    }
    const [item] = await itemsOf([map.ids[row]], signal);
    if (row === chosen) hover.replaceChildren(h("b", { dir: "auto" }, describe(item).title), meta(item));
  }

  const open = (row) => (location.hash = itemHref(map.ids[row]));
  let drag = null;
  let moved = false;
  canvas.addEventListener("pointermove", (event) => {
    if (!map) return;
    if (!drag) {
      point(nearest(event));
      return;
    }
    view = { ...view, x: drag.x + event.clientX - drag.left, y: drag.y + event.clientY - drag.top };
    moved ||= Math.hypot(event.clientX - drag.left, event.clientY - drag.top) > 4;
    draw();
  });
  canvas.addEventListener("pointerdown", (event) => {
    drag = { left: event.clientX, top: event.clientY, x: view.x, y: view.y };
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", (event) => {
    drag = null;
    const row = moved || !map ? -1 : nearest(event);
    if (row >= 0) open(row);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (!map?.ids.length) return;
    if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.3 : 1 / 1.3);
    else if (event.key === "0") {
      view = { scale: 1, x: 0, y: 0 };
      draw();
    } else if (event.key in steps) point((chosen + steps[event.key] + map.ids.length) % map.ids.length);
    else if (event.key === "Enter" && chosen >= 0) open(chosen);
    else return;
    event.preventDefault();
  });

  function zoom(by) {
    const scale = Math.min(40, Math.max(1, view.scale * by));
    const ratio = scale / view.scale;
    view = { scale, x: view.x * ratio, y: view.y * ratio };
    draw();
  }

  /** [label, count] of each colour; `colours` gets the colour of each point. */
  function coloured() {
    const numbers = map.values.map(leadingNumber);
    const known = numbers.filter(Number.isFinite).sort((a, b) => a - b);
    if (known.length > 0.8 * map.values.length) {
      const edges = Array.from({ length: BANDS - 1 }, (_, at) => known[Math.floor(((at + 1) * known.length) / BANDS)]);
      colours = numbers.map((value) => (Number.isFinite(value) ? edges.filter((edge) => value >= edge).length + COLOURS : COLOURS - 1));
      const labels = edges.map((edge, at) => (at ? `${number(edges[at - 1], 2)} to ${number(edge, 2)}` : `below ${number(edge, 2)}`));
      return [...labels, `${number(edges.at(-1), 2)} and more`].map((label, at) => [label, at + COLOURS]);
    }
    const counts = new Map();
    for (const value of map.values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
    const top = [...counts].sort(([, a], [, b]) => b - a).slice(0, COLOURS - 1);
    const colourOf = new Map(top.map(([value], at) => [value, at]));
    colours = map.values.map((value) => colourOf.get(value) ?? COLOURS - 1);
    const labels = top.map(([value, count], at) => [`${asText(value)} (${number(count)})`, at]);
    return colours.includes(COLOURS - 1) ? [...labels, ["everything else", COLOURS - 1]] : labels;
  }

  async function load(attribute) {
    choice.value = attribute;
    const read = (limit) => get(`map${query({ attribute, item, limit })}`, signal);
    map = await read().catch(() => read(20000)); // all of a large catalogue may take too long
    chosen = -1;
    hover.replaceChildren();
    colours = map.ids.map(() => 0);
    const labels = attribute ? coloured() : [];
    key.replaceChildren(...labels.map(([label, colour]) => h("li", h("span", { class: `dot map-dot${colour}` }), label)));
    const [first, second] = map.explained.map((share) => number(100 * share));
    status.textContent = `${number(map.ids.length)} of ${number(map.items)} items. The two directions show ${first} and ${second} % of what sets items apart. Drag to move, wheel or + and - to zoom, 0 to start over; click a point to open its item.`;
    canvas.setAttribute("aria-label", `The catalogue as ${number(map.ids.length)} points. Arrow keys go from item to item, Enter opens one.`);
    draw();
    if (!item) return;
    point(map.ids.indexOf(item));
    if (chosen < 0) status.prepend(`${item} is hidden or deleted. `);
  }

  async function drawShopper() {
    const { users } = await get(`users${query({ limit: 8, events: 2 })}`, signal);
    const user = (users.find(({ events }) => events.length > 1) ?? users[0])?.user_id;
    if (!user) {
      status.textContent = "No events are stored yet, so there is no shopper to draw.";
      return;
    }
    const [{ events }, { items }] = await Promise.all([get(`${userPath(user)}?limit=${STORED}`, signal), post("recommend", { user_id: user, k: ANSWERS }, signal)]);
    remember(items);
    const rowOf = new Map(map.ids.map((id, row) => [id, row]));
    const history = [...events].reverse().map((event) => rowOf.get(event.item_id)).filter((row) => row !== undefined);
    const answers = items.map((item, at) => ({ row: rowOf.get(item.item_id), rank: at + 1 })).filter(({ row }) => row !== undefined);
    shopper = { user, history, answers };
    draw();
    status.replaceChildren(`Shopper ${user}: ${plural(history.length, "item")} of the history as rings, the newest darkest; the ${answers.length} best recommendations as numbered discs. `, h("a", { href: `#/try${query({ user })}` }, "Open in Try"), " ", button("Remove the shopper", () => {
      shopper = null;
      load(choice.value);
    }, { kind: "link" }));
    announce(`Shopper ${user} is drawn in.`);
  }

  const { attributes } = await get(`attributes${query({ values: 1 })}`, signal);
  choice.append(...attributes.map((one) => h("option", { value: one.name }, one.name)));
  await load(attributes.find((one) => one.type === "number" || isFacet(one))?.name ?? "");
}
