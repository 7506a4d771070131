// Reports: what became of recommendations, and how the variants of experiments compare.

import { get, post, query } from "../api.js";
import { announce, button, code, empty, figure, fill, h, hint, number, options, pageHead, panel, plural, row, scrolled, skeletons, table, withStyle } from "../dom.js";
import { share } from "../items.js";
import { command, curl } from "../request.js";

const GROUPS = { placement: "placement", variant: "variant", model: "model", position: "position", cold: "new and known items", source: "source", part: "part of the score" };
const DAYS = [1, 7, 30, 90, 365];
const COLUMNS = 10; // positions of the chart
const ROWS = 200;
const SOURCES = { model: "the model", similar: "similar items (fallback)", trending: "trending (fallback)", popular: "popular items", dense: "the dense model", repeat: "repeats" };
const METRICS = { click_through: "click-through", conversion: "conversion", revenue_per_user: "revenue per user" };

export async function render(main, { query: given, signal }) {
  const chosen = {
    by: Object.hasOwn(GROUPS, given.get("by")) ? given.get("by") : "placement",
    days: DAYS.find((days) => String(days) === given.get("days")) ?? 30,
    placement: given.get("placement") ?? "",
  };
  const placement = select("placement", [["", "All"]]);
  const by = select("by", Object.entries(GROUPS));
  const days = select("days", DAYS.map((count) => [count, count === 1 ? "today" : `the last ${count} days`]));
  const place = h("div.stack");
  main.replaceChildren(
    pageHead("Reports", "What became of recommendations: what people were shown, and what they clicked and bought."),
    h("div.controls", field("Placement", placement), field("Answers of", days), field("Group by", by)),
    place,
  );
  await draw([h("div.tiles.four", skeletons(4, "tile-skeleton")), ...skeletons(2, "panel-skeleton")]);

  function select(name, options) {
    const control = h("select", { name, onchange: async () => {
      chosen[name] = name === "days" ? Number(control.value) : control.value;
      history.replaceState(null, "", `${location.search}#/reports${query(chosen)}`);
      await draw();
      if (!signal.aborted) announce("The report has changed.");
    } });
    setOptions(control, options, chosen[name]);
    return control;
  }

  function draw(waiting = []) {
    return fill(place, signal, content, waiting);
  }

  async function content() {
    const asked = new Map(); // what is shown twice is asked for once
    const report = (group, of) => {
      const path = `reports${query({ by: group, days: chosen.days, placement: of })}`;
      if (!asked.has(path)) asked.set(path, get(path, signal));
      return asked.get(path);
    };
    const [all, grouped, positions] = await Promise.all([
      report("placement", ""),
      report(chosen.by, chosen.placement),
      report("position", chosen.placement),
    ]);
    const names = new Set([...all.rows, ...all.experiments].map((row) => row.placement));
    if (chosen.placement) names.add(chosen.placement);
    setOptions(placement, [["", "All"], ...[...names].sort().map((name) => [name, name])], chosen.placement);
    const experiments = grouped.experiments.map(experimentPanel);
    if (!grouped.rows.length) return [panel(`By ${GROUPS[chosen.by]}`, await nothing()), ...experiments];
    return [
      tiles(grouped),
      ...experiments,
      h("div.columns.reports-columns", panel(`By ${GROUPS[chosen.by]}`, reportTable(grouped)), panel("Click-through by position", chart(positions.rows))),
      hint(`Answers from ${grouped.since} to ${grouped.until}, days in UTC. The small figures are intervals of 95 %, for one look. From the command line: `, code(`seqrec report --by ${chosen.by} --days ${chosen.days}${chosen.placement ? ` --placement ${chosen.placement}` : ""}`)),
    ];
  }

  async function nothing() {
    const where = chosen.placement ? `placement ${chosen.placement}` : "this service";
    const face = empty(
      "No outcomes in these days",
      `Outcomes of ${where} appear as soon as events name the recommendation that they come from. This command reports an item as shown to a user reports-example, and as clicked. Delete that user afterwards, and the report is empty again.`,
      button("Look again", () => draw(), { kind: "primary" }),
      chosen.days < 365 && button("Look at the last 365 days", () => { days.value = "365"; days.dispatchEvent(new Event("change")); }),
    );
    const text = await example(signal);
    if (text) face.querySelector("p").after(command(text));
    else face.querySelector("p").textContent = `Outcomes of ${where} appear as soon as POST /events names the recommendation_id of an answer. There is no item to recommend yet.`;
    return face;
  }
}

/** Events as curl would send them, of an answer that was made for it; "" where nothing can be recommended. */
async function example(signal) {
  const { items, recommendation_id: id } = await post("recommend", { history: [], k: 1 }, signal);
  if (!items.length) return "";
  const events = ["shown", "clicked"].map((type) => ({ user_id: "reports-example", item_id: items[0].item_id, type, recommendation_id: id }));
  return curl("events", `{"events": [\n${events.map((event) => `  ${JSON.stringify(event)}`).join(",\n")}]}`);
}

const field = (label, control) => h("label.field", label, control);
const percent = (rate, digits = 2) => `${number(100 * rate, digits)}\u00a0%`;
const signed = (lift) => (lift > 10 ? "over +1,000\u00a0%" : `${lift < 0 ? "−" : "+"}${number(Math.abs(100 * lift), 1)}\u00a0%`);
const between = ([low, high]) => `${percent(low)} to ${percent(high)}`;

function setOptions(control, pairs, value) {
  control.replaceChildren(...options(pairs));
  control.value = String(value);
}

/** Wilson's interval of 95 %, as in the service, of sums over its rows. */
function wilson(count, of) {
  const z = 1.959964;
  const rate = Math.min(1, count / of);
  const centre = (rate + z ** 2 / (2 * of)) / (1 + z ** 2 / of);
  const half = (z / (1 + z ** 2 / of)) * Math.sqrt((rate * (1 - rate)) / of + z ** 2 / (4 * of ** 2));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

function tiles({ rows }) {
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  const [shown, clicks, purchases, revenue] = ["impressions", "clicks", "purchases", "revenue"].map(sum);
  return h("div.tiles.four", figure("Impressions", number(shown), "items in answers that were shown"),
    figure("Click-through", percent(clicks / shown), `${plural(clicks, "click")}; ${between(wilson(clicks, shown))}`),
    figure("Conversion", percent(purchases / shown), `${plural(purchases, "purchase")}; ${between(wilson(purchases, shown))}`),
    figure("Revenue", number(revenue, 2), `${number(revenue / shown, 4)} per impression`),
  );
}

function reportTable({ by, rows }) {
  const heads = ["Placement", ...(by === "placement" ? [] : [{ cold: "Items" }[by] ?? by[0].toUpperCase() + by.slice(1)]), "Impressions", "Click-through", "Conversion", "Revenue", "Per impression"];
  const left = by === "placement" ? 1 : 2;
  const cell = (value, interval) => [value, interval && [" ", h("small", interval)]];
  return [
    scrolled("Report", table(`report left${left}`, heads, rows.slice(0, ROWS).map((one) => row(
      one.placement,
      ...(by === "placement" ? [] : [h("td", { dir: "auto" }, groupName(by, one))]),
      number(one.impressions),
      cell(percent(one.click_through), between(one.click_through_interval)),
      cell(percent(one.conversion), between(one.conversion_interval)),
      number(one.revenue, 2),
      cell(number(one.revenue_per_impression, 4), one.revenue_per_impression_interval?.map((bound) => number(bound, 4)).join(" to ")),
    )))),
    rows.length > ROWS && hint(`${number(rows.length - ROWS)} more rows: choose a placement.`),
  ].filter(Boolean);
}

function groupName(by, { group, experiment }) {
  if (by === "variant") return group ? [group, experiment && [" ", h("small", `of ${experiment}`)]] : "no experiment";
  if (by === "cold") return group === "1" ? "new: no events yet" : "known: had events";
  if (by === "position") return group === "100" ? "100 and later" : group;
  if (by === "model") return group ? code(group) : "not known";
  return SOURCES[group] ?? group;
}

/** Click-through of the first places, with its interval; places of several placements are summed. */
function chart(rows) {
  const found = new Map();
  for (const { group, impressions, clicks } of rows) {
    const was = found.get(Number(group)) ?? { impressions: 0, clicks: 0 };
    found.set(Number(group), { impressions: was.impressions + impressions, clicks: was.clicks + clicks });
  }
  const places = [...found].sort(([one], [other]) => one - other).slice(0, COLUMNS).map(([position, { impressions, clicks }]) => ({ position, impressions, rate: clicks / impressions, interval: wilson(clicks, impressions) }));
  // Few impressions have wide intervals: one of them must not flatten all columns.
  const most = Math.max(1e-6, Math.min(Math.max(...places.map(({ interval }) => interval[1])), 2 * Math.max(...places.map(({ rate }) => rate)) || 1));
  return [
    h("ol.chart", { "aria-label": "Click-through by position" }, places.map(({ position, impressions, rate, interval }) => h("li", h("span.hidden", `position ${position}: ${percent(rate)}, ${between(interval)}, of ${plural(impressions, "impression")}`),
      h("span.chart-value", { "aria-hidden": "true" }, number(100 * rate, 1)),
      h("span.chart-column", { "aria-hidden": "true" }, share(h("span.chart-bar"), rate / most), withStyle(h("span.chart-interval"), { "--low": String(interval[0] / most), "--high": String(Math.min(1, interval[1] / most)) })),
      h("span.chart-name", { "aria-hidden": "true" }, position),
    ))),
    hint(`Clicks in percent of impressions, by place in the answer. ${found.size > COLUMNS ? "Later places: group by position." : "The lines are intervals of 95 %."}`),
  ];
}

// --- experiments ---

/** Which way a lift points: at all looks together, its interval is wrong at most once in twenty times. */
const direction = (lift) => (lift === null ? null : lift.interval[0] > 0 ? "ahead" : lift.interval[1] < 0 ? "behind" : "same");
const WORDS = { ahead: "ahead", behind: "behind", same: "no difference seen yet" };

function experimentPanel({ placement, experiment, variants }) {
  const [base, ...others] = variants;
  const cell = ({ value, interval }, write) => [write(value), interval && [" ", h("small", interval.map((bound) => write(bound)).join(" to "))]];
  const amount = (value) => number(value, 4);
  return panel(
    `Experiment ${experiment}`,
    h("p.lead", `of ${placement}, since it began`),
    h("div.verdicts", others.length ? others.map((other) => verdict(other, base)) : h("p.note", `Only ${base.variant} has outcomes yet, so there is nothing to compare.`)),
    scrolled(`Variants of ${experiment}`, table("report left1", ["Variant", "Users", "Impressions", "Click-through", "Conversion", "Revenue per user"], variants.map((one) => row(one.variant, number(one.users), number(one.impressions), cell(one.click_through, percent), cell(one.conversion, percent), cell(one.revenue_per_user, amount))))),
    others.map((other) => comparison(other, base)),
    others.length > 0 && hint("The intervals of lifts are valid however often you look, so you may look every day and stop when a variant is ahead. Choose the line that decides before you begin."),
  );
}

/** In plain words, with what was measured where a variant differs. */
function verdict(other, base) {
  const lifts = Object.entries(METRICS).map(([name, metric]) => ({ metric, lift: other[name].lift, way: direction(other[name].lift) }));
  const differs = lifts.filter(({ way }) => way === "ahead" || way === "behind");
  if (lifts.every(({ way }) => way === null)) {
    return h("p.note", h("b", "Too little to tell yet. "), `${other.variant} and ${base.variant} need at least 100 users each, and 50 clicks or purchases.`);
  }
  if (!differs.length) {
    return h("p.note", h("b", "No difference seen yet "), `between ${other.variant} and ${base.variant}.`);
  }
  const behind = differs.some(({ way }) => way === "behind");
  return h("p", { class: `note ${behind ? "warn" : "good"}` }, differs.map(({ metric, lift, way }, row) => [
    row > 0 && " ", h("b", `${other.variant} is ${way}`), `${way === "ahead" ? " of" : ""} ${base.variant} in ${metric}: ${signed(lift.lift)} (${lift.interval.map(signed).join(" to ")}).`,
  ]));
}

/** Each lift on a line from -most to most, with 0 in the middle. */
function comparison(other, base) {
  const rows = Object.entries(METRICS).map(([name, metric]) => ({ metric, lift: other[name].lift }));
  const most = Math.min(1, Math.max(0.05, ...rows.flatMap(({ lift }) => (lift ? lift.interval.map(Math.abs) : []))));
  const at = (value) => String((1 + Math.max(-1, Math.min(1, value / most))) / 2);
  return [
    h("h3", `${other.variant} against ${base.variant}`),
    h("ul.lifts", rows.map(({ metric, lift }) => {
      const way = direction(lift);
      return h("li", h("span", metric),
        h("span", { class: `lift-line ${way ?? ""}`, "aria-hidden": "true" }, lift && [withStyle(h("span.lift-interval"), { "--low": at(lift.interval[0]), "--high": at(lift.interval[1]) }), withStyle(h("span.lift-point"), { "--low": at(lift.lift) })]),
        h("span", lift ? [h("b", signed(lift.lift)), " ", h("small", lift.interval.map(signed).join(" to "))] : "–"),
        h("span", { class: way === "ahead" ? "lift-word up" : way === "behind" ? "lift-word down" : "lift-word" }, WORDS[way] ?? "too little to tell yet"),
      );
    })),
  ];
}
