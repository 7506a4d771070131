// A request of the API as it would be sent by hand: with curl, or with Python's standard library.

import { announce, button, h } from "./dom.js";
import { currentKey } from "./key.js";

const address = (path) => new URL(path, document.baseURI.replace(/[?#].*/s, "")).href;
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A request as curl sends it. Where a key is in use it is $KEY, which is for the reader to set: no key is ever shown. */
export function curl(path, json) {
  const key = currentKey() === null ? "" : ' \\\n  -H "Authorization: Bearer $KEY"';
  return `curl -s ${address(path)}${key} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(json)}`;
}

function python(path, body) {
  const keyed = currentKey() !== null;
  const headers = `{"content-type": "application/json"${keyed ? ', "authorization": "Bearer " + os.environ["KEY"]' : ""}}`;
  return `import json, ${keyed ? "os, " : ""}urllib.request\n\nbody = json.loads(r'''${JSON.stringify(body, null, 1).replaceAll("'''", "''\\u0027")}''')\nrequest = urllib.request.Request(\n    "${address(path)}",\n    json.dumps(body).encode(),\n    ${headers},\n)\nfor item in json.load(urllib.request.urlopen(request))["items"]:\n    print(item["item_id"], item["score"])`;
}

const FORMS = {
  curl: (body) => curl("recommend", JSON.stringify(body)),
  Python: (body) => python("recommend", body),
  JSON: (body) => JSON.stringify(body, null, 2),
};

/** A button that copies the text of a node. */
export function copyButton(code) {
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
  return copy;
}

/** A command to copy. */
export function command(text) {
  const code = h("code", text);
  return h("div.request", h("pre", { tabindex: "0", "aria-label": "The command" }, code), copyButton(code));
}

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
  const copy = copyButton(code);
  const draw = () => (code.textContent = FORMS[form](body));
  const answered = h("code");
  const answer = h("details", { hidden: true }, h("summary", "The answer"), h("pre", { tabindex: "0", "aria-label": "The answer" }, answered));
  const box = h("div.request", h("div.row.spread", h("div.segmented", { role: "group", "aria-label": "Form of the request" }, tabs), copy), h("pre", { tabindex: "0", "aria-label": "The request" }, code), answer);
  box.answer = (json) => {
    answer.hidden = false;
    answered.textContent = JSON.stringify(json, null, 2);
  };
  box.show = (now) => {
    body = now;
    draw();
  };
  return box;
}
