// API keys: which there are, a new one, shown once, and their end. What may not be done over HTTP is a command.

import { get, post, remove } from "./api.js";
import { announce, button, confirmed, date, fill, h, number, panel, problemBox, skeletons } from "./dom.js";
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
        h("p", { class: "note warn" }, h("b", {}, "There are no API keys: "), "everybody who reaches this address may do everything."),
        h("p", { class: "hint" }, "The first key, and every key with the scope admin, is made on the machine of the service. From then on each request needs a key, and this page asks for one:"),
        h("div", { class: "command" }, command(FIRST)),
      ];
    }
    const own = currentKey() === null ? null : (await login(currentKey()))?.name;
    return [
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of keys" }, h("table", { class: "list" },
        h("thead", {}, h("tr", {}, ["Name", "Scopes", "Limits", "Created", "Expires", "Requests", ""].map((name) => h("th", { scope: "col" }, name || h("span", { class: "hidden" }, "Actions"))))),
        h("tbody", {}, keys.map((key) => row(key, own))))),
      h("p", { class: "hint" }, "Requests since the service started. A revoked key is refused within 250 ms. A key with the scope admin is made and revoked on the machine of the service: ", h("code", {}, FIRST)),
      newKey(),
    ];
  }

  function row(key, own) {
    const state = key.name === own ? h("span", { class: "badge" }, "this tab") : key.state === "active" ? null : h("span", { class: "badge bad" }, key.state);
    const limits = [key.rate, key.quota].filter(Boolean).join(", ") || "–";
    const day = (seconds) => (seconds ? date(seconds) : "never");
    const count = used(key.name);
    return h("tr", {}, h("th", { scope: "row" }, h("b", { dir: "auto" }, key.name), " ", state), h("td", {}, key.scopes.join(", ")), h("td", {}, limits), h("td", {}, day(key.created)), h("td", {}, day(key.expires)), h("td", {}, count === undefined ? "–" : number(count)), h("td", {}, key.state === "active" && key.name !== own ? button("Revoke", () => revoke(key), { kind: "quiet", "aria-label": `Revoke ${key.name}` }) : null));
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
    const name = h("input", { required: true, maxlength: "64", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "letters, digits, dots, dashes and underscores", autocomplete: "off", spellcheck: "false", placeholder: "shop" });
    const expires = h("select", {}, Object.entries(EXPIRES).map(([value, label]) => h("option", { value, selected: value === "90d" }, label)));
    const rate = h("input", { placeholder: "100/s", autocomplete: "off", spellcheck: "false" });
    const boxes = Object.entries(SCOPES).map(([scope, tells]) => [scope, h("input", { type: "checkbox", checked: scope === "recommend" }), tells]);
    const answer = h("div", { "aria-live": "polite" });
    const form = h("form", { class: "new-key", onsubmit: async (event) => {
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
      h("h3", {}, "New key"),
      h("div", { class: "controls" }, h("label", { class: "field" }, "Name", name), h("label", { class: "field" }, "Ends after", expires), h("label", { class: "field" }, "Most requests (optional)", rate)),
      h("div", { class: "row", role: "group", "aria-label": "Scopes" }, boxes.map(([scope, box, tells]) => h("label", { class: "check" }, box, h("span", {}, h("b", {}, scope), " ", h("span", { class: "soft" }, tells))))),
      h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Create the key")),
      answer);
    return form;
  }

  function showOnce({ name, key }) {
    const code = h("code", {}, key);
    const dialog = h("dialog", { class: "small", "aria-labelledby": "once-title", onclose: () => dialog.remove() },
      h("h2", { id: "once-title" }, `The key ${name}`),
      h("p", {}, "Copy it now. It is not shown again: the service stores its SHA-256 only."),
      h("div", { class: "request" }, h("pre", { tabindex: "0", "aria-label": "The key" }, code)),
      h("div", { class: "row end" }, copyButton(code), button("Done", () => dialog.close(), { kind: "primary" })));
    document.body.append(dialog);
    dialog.showModal();
  }

  const box = panel("API keys", place);
  draw();
  return box;
}
