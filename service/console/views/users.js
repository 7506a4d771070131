// Users: look one up, what they did when, what is recommended to them now and why, and delete what is stored.

import { get, post, query, remove, userPath } from "../api.js";
import { legend, productCard, reasonsOf } from "../cards.js";
import { button, confirmed, date, empty, fill, h, icon, number, pageHead, panel, plural, skeletons } from "../dom.js";
import { describe, itemsOf, remember, tile } from "../items.js";

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
  const input = h("input", { id: "user-id", type: "search", placeholder: "User id", "aria-label": "User id", autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    if (input.value.trim()) location.hash = hrefOf(input.value.trim());
  } }, icon("search"), input, h("button", { type: "submit", class: "primary" }, "Look up"));
  const list = h("div");
  const draw = () => fill(list, signal, sample, [h("ul", { class: "cards" }, skeletons(6, "card-skeleton"))]);
  main.replaceChildren(pageHead("Users", "What is stored of a user, and what they would be recommended now."), form, h("div", { class: "row spread section-head" }, h("h2", {}, "A random sample"), button("Show others", draw, { kind: "quiet", glyph: "shuffle" })), list);
  await draw();

  async function sample() {
    const { users } = await get(`users${query({ limit: SAMPLE, events: LAST })}`, signal);
    const items = new Map((await itemsOf(users.flatMap(({ events }) => events.map((event) => event.item_id)), signal)).map((item) => [item.item_id, item]));
    if (!users.length) return empty("No users yet", "Events make users: send them with POST /events, or import a file with seqrec events import.");
    return h("ul", { class: "cards" }, users.map(({ user_id: user, events }) =>
      h("li", { class: "card" }, h("h3", {}, h("a", { class: "card-title", dir: "auto", href: hrefOf(user) }, user)), h("p", { class: "meta" }, h("span", {}, `last event ${date(events.at(-1).timestamp)}`)), h("ul", { class: "mini" }, [...events].reverse().map((event) => h("li", {}, tile(items.get(event.item_id)), h("span", { dir: "auto" }, describe(items.get(event.item_id)).title)))))));
  }
}

async function userPage(main, user, signal) {
  const recommended = h("div");
  const placement = h("select", { "aria-label": "Placement", hidden: true, onchange: () => fill(recommended, signal, recommend) }, h("option", { value: "" }, "no placement"));
  const timeline = h("div");
  const head = pageHead(
    user,
    "",
    h("a", { class: "button", href: `#/try${query({ user })}` }, icon("try"), h("span", {}, "Open in Try")),
    button("Export", exportUser),
    button("Delete", deleteUser, { kind: "danger-quiet" }),
  );
  let stored = null;
  main.replaceChildren(h("p", { class: "crumbs" }, h("a", { href: "#/users" }, "Users")), head, h("div", { class: "columns wide-side" }, h("section", { class: "main-column", "aria-label": "Recommended now" }, h("div", { class: "row spread head" }, h("h2", {}, "Recommended now"), placement), recommended), h("aside", { class: "side-column" }, panel("Timeline", timeline))));
  await Promise.all([
    fill(recommended, signal, recommend, [h("ul", { class: "cards" }, skeletons(K, "card-skeleton"))]),
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
    const note = source === "model" ? null : h("p", { class: "hint" }, "Nothing is stored that the model can go by, so these are the popular items.");
    return [h("div", { class: "legend-row" }, legend(items), note), h("ol", { class: "cards" }, items.map((item, row) => productCard(item, { rank: row + 1, best: items[0].score, names })))];
  }

  async function events() {
    stored = await get(`${userPath(user)}?limit=${EVENTS}`, signal);
    const newest = stored.events;
    const days = new Set(newest.map((event) => date(event.timestamp)));
    head.querySelector("div").append(h("p", { class: "lead" }, `${newest.length === EVENTS ? `the newest ${number(EVENTS)} events` : plural(newest.length, "event")} on ${plural(days.size, "day")}, the last on ${date(newest[0].timestamp)}`));
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
    const list = h("ol", { class: "timeline" }, [...days].map(([day, entries]) => h("li", {}, h("h3", {}, day), h("ul", {}, entries.map(({ event, item }) => h("li", {}, tile(item), h("a", { class: "card-title", dir: "auto", href: `#/items/${encodeURIComponent(item.item_id)}` }, describe(item).title), event.type && h("span", { class: "badge quiet-badge" }, event.type), h("time", { class: "soft" }, date(event.timestamp, { timeStyle: "short" }))))))));
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
      return empty("Deleted", `${plural(deleted, "event")} of ${user} removed.`, h("a", { class: "button", href: "#/users" }, "All users"));
    });
  }
}
