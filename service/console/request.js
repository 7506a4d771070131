// A request of the API as it would be sent by hand: with curl, or with Python's standard library.

import { announce, button, h } from "./dom.js";

const address = () => new URL("recommend", document.baseURI.replace(/[?#].*/s, "")).href;
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const FORMS = {
  curl: (body) => `curl -s ${address()} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`,
  Python: (body) =>
    `import json, urllib.request\n\nbody = json.loads(r'''${JSON.stringify(body, null, 1).replaceAll("'''", "''\\u0027")}''')\nrequest = urllib.request.Request(\n    "${address()}",\n    json.dumps(body).encode(),\n    {"content-type": "application/json"},\n)\nfor item in json.load(urllib.request.urlopen(request))["items"]:\n    print(item["item_id"], item["score"])`,
  JSON: (body) => JSON.stringify(body, null, 2),
};

/** The panel; `show(body)` changes the request. */
export function requestPanel() {
  let form = "curl";
  let body = {};
  const code = h("code");
  const tabs = Object.keys(FORMS).map((name) =>
    h("button", { type: "button", "aria-pressed": String(name === form), onclick: () => {
      form = name;
      for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.textContent === name));
      draw();
    } }, name),
  );
  const copy = button("Copy", async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // the clipboard may be forbidden; then it is one key away
      said = "Selected: press Ctrl+C";
    }
    copy.lastElementChild.textContent = said;
    announce(said);
    setTimeout(() => (copy.lastElementChild.textContent = "Copy"), 1600);
  }, { kind: "quiet", glyph: "copy" });
  const draw = () => (code.textContent = FORMS[form](body));
  const box = h("div", { class: "request" }, h("div", { class: "row spread" }, h("div", { class: "segmented", role: "group", "aria-label": "Form of the request" }, tabs), copy), h("pre", { tabindex: "0", "aria-label": "The request" }, code));
  box.show = (now) => {
    body = now;
    draw();
  };
  return box;
}
