// Small pictures of figures, as inline SVG: lines over steps, and events by day. Each says the same in words, and as a
// table where it does not change while it is looked at.

import { date, empty, h, hint, number, plural, row, scrolled, svg, table } from "./dom.js";

const [WIDE, HIGH] = [600, 120];
const DAY = 86_400_000;
const BARS = 62; // at most; of longer times a bar is a week, or several
const TYPES = 4; // that have a colour of their own: .part0 …

const asTable = (name, heads, rows) => h("details", h("summary", "As a table"), scrolled(`${name}, as a table`, table("figures", heads, rows)));

/** A picture between what it says, in words, and what its left and right ends are. */
const framed = (name, told, ends, marks) => [
  hint(told),
  svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "spark", preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${told}` }, ...[1, HIGH / 2, HIGH - 1].map((y) => svg("line", { x1: 0, x2: WIDE, y1: y, y2: y, class: "base" })), ...marks),
  h("p.hint.row.spread", { "aria-hidden": "true" }, ends.map((text) => h("span", text))),
];

/**
 * Lines, each a list of [x, y] with x from `from` to `to`; a line of one point is a dot. `told`: what they say, in
 * words. `low`: where the scale begins; null: at the least value. `ends`: what is at the left and the right.
 */
export function lineChart(name, lines, told, { from, to, low = null, ends }) {
  const values = lines.flat().map(([, y]) => y);
  const least = low ?? Math.min(...values);
  const most = Math.max(...values, least) - least || 1;
  const at = ([x, y]) => `${((WIDE * (x - from)) / (to - from || 1)).toFixed(1)},${(HIGH - 4 - (HIGH - 8) * ((y - least) / most)).toFixed(1)}`;
  return framed(name, told, ends, lines.map((points, place) => svg("polyline", { points: [points[0], ...points].filter(Boolean).map(at).join(" "), class: points.length === 1 ? "dot" : `line${place % 2}` })));
}

/** The curves of a training run: the loss, and the validation figure that its best weights were chosen by. */
export function runCharts({ curves }) {
  const range = { from: Math.min(...curves.map(({ begins }) => begins)), to: Math.max(...curves.map(({ ends }) => ends)) };
  const ends = [`step ${number(range.from)}`, `step ${number(range.to)}`];
  const chart = (title, key, told, low = null) => {
    const drawn = curves.filter((one) => one[key].length);
    const lines = drawn.map((one) => one[key]);
    const rows = curves.flatMap((one) => one[key].map(([step, value]) => row(number(step), one.stage, number(value, 4))));
    return h("section", { "aria-label": title }, h("h3", title), drawn.length ? [lineChart(title, lines, drawn.map(told).join(", "), { ...range, low, ends }), asTable(title, ["Step", "Stage", "Value"], rows)] : hint("Nothing yet."));
  };
  const best = ({ stage, ndcg }) => `${stage} ${number(Math.max(...ndcg.map(([, value]) => value)), 4)}`;
  return h("div.columns.even", chart("Training loss", "loss", ({ stage, loss }) => `${stage} from ${number(loss[0][1], 3)} to ${number(loss.at(-1)[1], 3)}`),
    chart("Validation NDCG@10, the best of each stage", "ndcg", best, 0));
}

export const noEvents = (title) => empty(title, "Events make users: send them with POST /events, or import a file with seqrec events import.");

/** Stored events over time, as GET /events answers: bars by day or week, in the colours of their types. */
export function eventChart({ users, events, days }) {
  if (!events) return noEvents("No events yet");
  const sum = (some) => some.reduce((all, one) => all + one.events, 0);
  const types = [...Map.groupBy(days, ({ type }) => type)].map(([type, own]) => ({ type, count: sum(own), name: type ?? "of no type" })).sort((a, b) => b.count - a.count);
  const swatch = (at) => `part part${Math.min(at, TYPES - 1)}`;
  const [first, last] = [days[0], days.at(-1)].map(({ day }) => Date.parse(day));
  const size = [1, 7, 28].find((one) => last - first < BARS * one * DAY) ?? Math.ceil((last - first) / (BARS * DAY) + 1);
  const placeOf = (time) => Math.floor((time - first) / (size * DAY));
  const begin = (place) => date((first + place * size * DAY) / 1000);
  const bars = [...Map.groupBy(days, ({ day }) => placeOf(Date.parse(day)))].map(([place, own]) => ({ place, counts: types.map(({ type }) => sum(own.filter((one) => one.type === type))), all: sum(own) }));
  const most = Math.max(...bars.map(({ all }) => all));
  const step = WIDE / Math.max(BARS / 4, placeOf(last) + 1);
  const told = `${plural(events, "event")} of ${plural(users, "user")}${last > first ? ` from ${begin(0)} to ${date(last / 1000)}, by ${{ 1: "day", 7: "week" }[size] ?? `${size} days`}, at most ${number(most)} each` : ` on ${begin(0)}`}`;
  const drawn = bars.map(({ place, counts }) => {
    let top = HIGH;
    const parts = counts.map((count, at) => svg("rect", { x: place * step, y: (top -= (HIGH * count) / most), width: 0.8 * step, height: (HIGH * count) / most, class: swatch(at) }));
    return svg("g", {}, svg("title", {}, `${begin(place)}: ${counts.map((count, at) => count && `${number(count)} ${types[at].name}`).filter(Boolean).join(", ")}`), ...parts);
  });
  return [
    ...framed("Events over time", told, [begin(0), last > first ? date(last / 1000) : ""], drawn),
    types.length > 1 ? h("ul.legend", types.map(({ name, count }, at) => h("li", h("span", { class: swatch(at) }), `${name} (${number(count)})`))) : "",
    asTable("Events", ["From", ...types.map(({ name }) => name)], bars.map(({ place, counts }) => row(begin(place), ...counts.map((count) => number(count))))),
  ];
}
