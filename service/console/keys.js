// API keys: which there are, a new one, shown once, and their end. What may not be done over HTTP is a command.

import { get, post, remove } from "./api.js";
import { PLAIN, announce, button, confirmed, date, fill, h, hint, number, openDialog, options, panel, problemBox, row, scrolled, skeletons, table } from "./dom.js";
import { currentKey, login } from "./key.js";
import { command, copyButton } from "./request.js";

const SCOPES = { recommend: "recommendations, finding items", write: "items, events, users", metrics: "metrics, reports" };
const EXPIRES = { "30d": "30 days", "90d": "90 days", "365d": "a year", "": "never" };
const FIRST = "seqrec keys create admin --scope admin";

/** The panel. `used(name)`: requests of a key since the start, as the metrics say; undefined: not known. */
export function keysPanel(signal, used) {
  const place = h("div");
  const draw = () => fill(place, signal, content, place.childElementCount ? [] : skeletons(3, "row-skeleton"));

  async function content() {
    const { keys } = await get("keys", signal);
    if (!keys.length) {
      return [
        h("p.note.warn", h("b", "There are no API keys: "), "everybody who reaches this address may do everything."),
        hint("The first key, and every key with the scope admin, is made on the machine of the service. From then on each request needs a key, and this page asks for one:"),
        h("div.command", command(FIRST)),
      ];
    }
    const own = currentKey() === null ? null : (await login(currentKey()))?.name;
    return [
      scrolled("Table of keys", table("list", ["Name", "Scopes", "Limits", "Created", "Expires", "Requests", ["Actions"]], keys.map((key) => keyRow(key, own)))),
      hint("Requests since the service started. A revoked key is refused within 250 ms. A key with the scope admin is made and revoked on the machine of the service: ", h("code", FIRST)),
      newKey(),
    ];
  }

  function keyRow(key, own) {
    const state = key.name === own ? h("span.badge", "this tab") : key.state === "active" ? null : h("span.badge.bad", key.state);
    const limits = [key.rate, key.quota].filter(Boolean).join(", ") || "–";
    const day = (seconds) => (seconds ? date(seconds) : "never");
    const count = used(key.name);
    const end = key.state === "active" && key.name !== own && button("Revoke", () => revoke(key), { kind: "quiet", "aria-label": `Revoke ${key.name}` });
    return row([h("b", { dir: "auto" }, key.name), " ", state], key.scopes.join(", "), limits, day(key.created), day(key.expires), count === undefined ? "–" : number(count), end);
  }

  async function revoke({ name }) {
    if (!(await confirmed(`Revoke ${name}?`, `Every request with the key ${name} is refused from now on, by every worker and host.`, "Revoke"))) return;
    try {
      await remove(`keys/${encodeURIComponent(name)}`);
      announce(`${name} is revoked.`);
      await draw();
    } catch (problem) {
      await fill(place, signal, () => Promise.reject(problem));
    }
  }

  function newKey() {
    const name = h("input", { required: true, maxlength: "64", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "letters, digits, dots, dashes and underscores", ...PLAIN, placeholder: "shop" });
    const expires = h("select", options(Object.entries(EXPIRES), "90d"));
    const rate = h("input", { placeholder: "100/s", ...PLAIN });
    const boxes = Object.entries(SCOPES).map(([scope, tells]) => [scope, h("input", { type: "checkbox", checked: scope === "recommend" }), tells]);
    const answer = h("div", { "aria-live": "polite" });
    const form = h("form.new-key", { onsubmit: async (event) => {
      event.preventDefault();
      const scopes = boxes.filter(([, box]) => box.checked).map(([scope]) => scope);
      try {
        const made = await post("keys", { name: name.value, scopes, expires: expires.value || null, rate: rate.value.trim() || null }, signal);
        await draw();
        showOnce(made);
      } catch (problem) {
        if (problem.status === undefined) throw problem;
        answer.replaceChildren(problemBox(problem));
      }
    } },
      h("h3", "New key"),
      h("div.controls", h("label.field", "Name", name), h("label.field", "Ends after", expires), h("label.field", "Most requests (optional)", rate)),
      h("div.row", { role: "group", "aria-label": "Scopes" }, boxes.map(([scope, box, tells]) => h("label.check", box, h("span", h("b", scope), " ", h("span.soft", tells))))),
      h("div.row", h("button.primary", { type: "submit" }, "Create the key")),
      answer);
    return form;
  }

  function showOnce({ name, key }) {
    const code = h("code", key);
    const dialog = openDialog({ "aria-labelledby": "once-title" }, () => {},
      h("h2", { id: "once-title" }, `The key ${name}`),
      h("p", "Copy it now. It is not shown again: the service stores its SHA-256 only."),
      h("div.request", h("pre", { tabindex: "0", "aria-label": "The key" }, code)),
      h("div.row.end", copyButton(code), button("Done", () => dialog.close(), { kind: "primary" })));
  }

  const box = panel("API keys", place);
  draw();
  return box;
}
