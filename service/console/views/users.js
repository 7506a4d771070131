// Users: look one up, what they did when, what is recommended to them now and why, and delete what is stored.

import { get, post, query, remove, userPath } from "../api.js";
import { eventChart, noEvents } from "../charts.js";
import { legend, productCard, reasonsOf } from "../cards.js";
import { PLAIN, button, confirmed, crumbs, date, debounce, empty, facts, fill, h, hint, icon, number, options, pageHead, panel, plural, skeletons } from "../dom.js";
import { describe, itemHref, itemsOf, remember, tile } from "../items.js";

const SAMPLE = 12;
const LAST = 4;
const EVENTS = 1000;
const SHOWN = 30; // events of the timeline, until more are asked for
const K = 6;

export async function render(main, { rest, signal }) {
  if (rest.length) return userPage(main, rest.join("/"), signal);
  return lookUp(main, signal);
}

const hrefOf = (user) => `#/users/${encodeURIComponent(user)}`;

async function lookUp(main, signal) {
  const input = h("input", { id: "user-id", type: "search", list: "known-users", placeholder: "User id, or how it begins", "aria-label": "User id", ...PLAIN });
  const known = h("datalist", { id: "known-users" });
  input.addEventListener("input", debounce(async () => {
    const prefix = input.value.trim();
    const { users } = prefix ? await get(`users${query({ prefix, limit: SAMPLE, events: 1 })}`, signal).catch(() => ({ users: [] })) : { users: [] };
    known.replaceChildren(...options(users.map(({ user_id: user }) => [user])));
  }, 150));
  const form = h("form.search", { role: "search", onsubmit: (event) => {
    event.preventDefault();
    if (input.value.trim()) location.hash = hrefOf(input.value.trim());
  } }, icon("search"), input, known, h("button.primary", { type: "submit" }, "Look up"));
  const list = h("div");
  const totals = h("div");
  const draw = () => fill(list, signal, sample, [h("ul.cards", skeletons(6, "card-skeleton"))]);
  main.replaceChildren(pageHead("Users", "What is stored of a user, and what they would be recommended now."), form, panel("Stored events", totals), h("div.row.spread.section-head", h("h2", "A random sample"), button("Show others", draw, { kind: "quiet", glyph: "shuffle" })), list);
  await Promise.all([draw(), fill(totals, signal, stored, skeletons(1, "panel-skeleton"))]);

  async function stored() {
    const all = await get("events", signal);
    return all.events ? h("div.columns.totals", facts({ Users: number(all.users), Events: number(all.events), "Events today, in UTC": number(all.today) }), h("div", eventChart(all))) : eventChart(all);
  }

  async function sample() {
    const { users } = await get(`users${query({ limit: SAMPLE, events: LAST })}`, signal);
    const items = new Map((await itemsOf(users.flatMap(({ events }) => events.map((event) => event.item_id)), signal)).map((item) => [item.item_id, item]));
    if (!users.length) return noEvents("No users yet");
    return h("ul.cards", users.map(({ user_id: user, events }) =>
      h("li.card", h("h3", h("a.card-title", { dir: "auto", href: hrefOf(user) }, user)), h("p.meta", h("span", `last event ${date(events.at(-1).timestamp)}`)), h("ul.mini", [...events].reverse().map((event) => h("li", tile(items.get(event.item_id)), h("span", { dir: "auto" }, describe(items.get(event.item_id)).title)))))));
  }
}

async function userPage(main, user, signal) {
  const recommended = h("div");
  const placement = h("select", { "aria-label": "Placement", hidden: true, onchange: () => fill(recommended, signal, recommend) }, h("option", { value: "" }, "no placement"));
  const timeline = h("div");
  const head = pageHead(
    user,
    "",
    h("a.button", { href: `#/try${query({ user })}` }, icon("try"), h("span", "Open in Try")),
    button("Export", exportUser),
    button("Delete", deleteUser, { kind: "danger-quiet" }),
  );
  let stored = null;
  main.replaceChildren(crumbs("users", "Users"), head, h("div.columns.wide-side", h("section.main-column", { "aria-label": "Recommended now" }, h("div.row.spread.head", h("h2", "Recommended now"), placement), recommended), h("aside.side-column", panel("Timeline", timeline))));
  await Promise.all([
    fill(recommended, signal, recommend, [h("ul.cards", skeletons(K, "card-skeleton"))]),
    fill(timeline, signal, events, skeletons(8, "row-skeleton")),
    offerPlacements(),
  ]);

  async function offerPlacements() {
    const { placements } = await get("placements", signal).catch(() => ({ placements: [] })); // a key may not read them
    placement.append(...placements.map(({ name }) => h("option", { value: name }, name)));
    placement.hidden = !placements.length;
  }

  async function recommend() {
    const { items, source } = await post("recommend", { user_id: user, k: K, explain: true, ...(placement.value && { placement: placement.value }) }, signal);
    remember(items);
    const names = await reasonsOf(items, signal);
    const note = source === "model" ? null : hint("Nothing is stored that the model can go by, so these are the popular items.");
    return [h("div.legend-row", legend(items), note), h("ol.cards", items.map((item, row) => productCard(item, { rank: row + 1, best: items[0].score, names })))];
  }

  async function events() {
    stored = await get(`${userPath(user)}?limit=${EVENTS}`, signal);
    const newest = stored.events;
    const days = new Set(newest.map((event) => date(event.timestamp)));
    head.querySelector("div").append(h("p.lead", `${newest.length === EVENTS ? `the newest ${number(EVENTS)} events` : plural(newest.length, "event")} on ${plural(days.size, "day")}, the last on ${date(newest[0].timestamp)}`));
    return eventList(newest, SHOWN);
  }

  async function eventList(newest, most) {
    const shown = newest.slice(0, most);
    const items = await itemsOf(shown.map((event) => event.item_id), signal);
    const days = new Map();
    shown.forEach((event, row) => {
      const day = date(event.timestamp);
      if (!days.has(day)) days.set(day, []);
      days.get(day).push({ event, item: items[row] });
    });
    const list = h("ol.timeline", [...days].map(([day, entries]) => h("li", h("h3", day), h("ul", entries.map(({ event, item }) => h("li", tile(item), h("a.card-title", { dir: "auto", href: itemHref(item.item_id) }, describe(item).title), event.type && h("span.badge.quiet-badge", event.type), h("time.soft", date(event.timestamp, { timeStyle: "short" }))))))));
    const left = newest.length - shown.length;
    return [list, left > 0 ? button(`Show ${number(Math.min(left, 200))} more`, () => fill(timeline, signal, () => eventList(newest, most + 200)), { kind: "quiet" }) : ""];
  }

  function exportUser() {
    if (!stored) return;
    const address = URL.createObjectURL(new Blob([JSON.stringify(stored, null, 1)], { type: "application/json" }));
    h("a", { href: address, download: "user.json" }).click();
    URL.revokeObjectURL(address);
  }

  async function deleteUser() {
    if (!(await confirmed("Delete this user?", `Everything that is stored of ${user} is removed, for good.`, "Delete"))) return;
    await fill(timeline, signal, async () => {
      const { deleted } = await remove(userPath(user));
      recommended.replaceChildren();
      return empty("Deleted", `${plural(deleted, "event")} of ${user} removed.`, h("a.button", { href: "#/users" }, "All users"));
    });
  }
}
