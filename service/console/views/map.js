// Map: the catalogue in two dimensions, on a canvas, coloured by an attribute.

import { get, query } from "../api.js";
import { h, number, pageHead, panel } from "../dom.js";
import { asText, describe, itemsOf, meta } from "../items.js";

const COLOURS = 7; // --map0 … --map6; the last is for everything else
const REACH = 14; // px

export async function render(main, { signal }) {
  const canvas = h("canvas", { class: "map", tabindex: "0", role: "img", "aria-label": "The catalogue as points" });
  const hover = h("div", { class: "map-hover", "aria-live": "polite" });
  const choice = h("select", { "aria-label": "Colour by", onchange: () => load(choice.value) }, h("option", { value: "" }, "one colour"));
  const key = h("ul", { class: "legend" });
  const status = h("p", { class: "hint", role: "status" }, "Reading the map …");
  main.replaceChildren(
    pageHead("Map", "Items that lie close together have similar vectors. Click a point to open its item.", h("label", { class: "row tight" }, h("span", {}, "Colour by"), choice)),
    panel("The catalogue", h("div", { class: "map-frame" }, canvas, hover), key, status),
  );
  let map = null;
  let colours = [];
  let view = { scale: 1, x: 0, y: 0 };
  let chosen = -1;

  const resize = new ResizeObserver(draw);
  resize.observe(canvas);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", draw);
  signal.addEventListener("abort", () => {
    resize.disconnect();
    scheme.removeEventListener("change", draw);
  });

  const place = (row) => {
    const half = Math.min(canvas.clientWidth, canvas.clientHeight) / 2 - 12;
    const wide = canvas.clientWidth / 2 - 12;
    return [canvas.clientWidth / 2 + view.x + map.x[row] * wide * view.scale, canvas.clientHeight / 2 + view.y - map.y[row] * half * view.scale];
  };

  function draw() {
    if (!map || !canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const palette = Array.from({ length: COLOURS }, (_, at) => style.getPropertyValue(`--map${at}`));
    const size = map.ids.length > 5000 ? 2 : 3.2;
    context.globalAlpha = 0.75;
    for (let colour = COLOURS - 1; colour >= 0; colour -= 1) {
      context.fillStyle = palette[colour];
      for (let row = 0; row < map.ids.length; row += 1) {
        if (colours[row] !== colour) continue;
        const [x, y] = place(row);
        context.fillRect(x - size / 2, y - size / 2, size, size);
      }
    }
    if (chosen < 0) return;
    context.globalAlpha = 1;
    context.strokeStyle = style.color;
    context.lineWidth = 2;
    const [x, y] = place(chosen);
    context.strokeRect(x - 6, y - 6, 12, 12);
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
    if (row < 0) return hover.replaceChildren();
    const id = map.ids[row];
    const [item] = await itemsOf([id], signal);
    if (map.ids[chosen] !== id) return undefined;
    hover.replaceChildren(h("b", { dir: "auto" }, describe(item).title), meta(item));
    return undefined;
  }

  let drag = null;
  let moved = false;
  canvas.addEventListener("pointermove", (event) => {
    if (!map) return;
    if (!drag) return void point(nearest(event));
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
    if (moved || !map) return;
    const row = nearest(event);
    if (row >= 0) location.hash = `#/items/${encodeURIComponent(map.ids[row])}`;
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.3 : 1 / 1.3);
    else if (event.key === "0") {
      view = { scale: 1, x: 0, y: 0 };
      draw();
    } else if (event.key in steps && map) point((chosen + steps[event.key] + map.ids.length) % map.ids.length);
    else if (event.key === "Enter" && chosen >= 0) location.hash = `#/items/${encodeURIComponent(map.ids[chosen])}`;
    else return;
    event.preventDefault();
  });

  function zoom(by) {
    const scale = Math.min(40, Math.max(1, view.scale * by));
    const ratio = scale / view.scale;
    view = { scale, x: view.x * ratio, y: view.y * ratio };
    draw();
  }

  async function load(attribute) {
    map = await get(`map${query({ attribute })}`, signal);
    chosen = -1;
    hover.replaceChildren();
    const counts = new Map();
    for (const value of map.values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
    const top = [...counts].sort(([, a], [, b]) => b - a).slice(0, COLOURS - 1);
    const colourOf = new Map(top.map(([value], at) => [value, at]));
    colours = map.ids.map((_, row) => (attribute ? colourOf.get(map.values[row]) ?? COLOURS - 1 : 0));
    const rest = map.ids.length - top.reduce((all, [, count]) => all + count, 0);
    key.replaceChildren(...(attribute ? [...top, ...(rest ? [["everything else", rest]] : [])] : []).map(([value, count], at) => h("li", {}, h("span", { class: `dot map-dot${value === "everything else" ? COLOURS - 1 : at}` }), `${asText(value)} (${number(count)})`)));
    const [first, second] = map.explained.map((share) => number(100 * share));
    status.textContent = `${number(map.ids.length)} of ${number(map.items)} items. The two directions show ${first} and ${second} % of what sets items apart. Drag to move, wheel or + and - to zoom, 0 to start over.`;
    canvas.setAttribute("aria-label", `The catalogue as ${number(map.ids.length)} points`);
    draw();
  }

  const [{ attributes }] = await Promise.all([get(`attributes${query({ values: 0 })}`, signal), load("")]);
  choice.append(...attributes.map((one) => h("option", { value: one.name }, one.name)));
}
