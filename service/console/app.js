// The shell: navigation, theme, the state of the connection, and the view that the address names.

import { connection, Problem, readyz } from "./api.js";
import { PLAIN, announce, button, code, h, icon, openDialog, pageHead, problemBox } from "./dom.js";
import { currentKey, login, logout } from "./key.js";

const VIEWS = [
  ["try", "Try"],
  ["items", "Items"],
  ["users", "Users"],
  ["models", "Models"],
  ["reports", "Reports"],
  ["operations", "Operations"],
  ["map", "Map"],
];
const HEALTH_POLL = 10_000;
const byId = (id) => document.getElementById(id);

// --- navigation ---

byId("nav").append(
  ...VIEWS.map(([name, label]) => h("a", { href: `#/${name}`, "data-view": name }, icon(name), h("span", label))),
);

/** #/items/85123A?x=1 -> {name: "items", rest: ["85123A"], query} */
function parsed() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  let parts = [];
  try {
    parts = path.split("/").map(decodeURIComponent);
  } catch {
    parts = [path];
  }
  return { name: parts[0] || "try", rest: parts.slice(1).filter(Boolean), query: new URLSearchParams(search) };
}

let running = new AbortController();
let first = true;

async function show() {
  if (location.hash === "#main") return byId("main").focus();
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const { name, rest, query } = parsed();
  const known = VIEWS.find(([view]) => view === name);
  for (const link of byId("nav").children) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const left of document.querySelectorAll("dialog:not(#key-form)")) left.close();
  document.title = known ? `${known[1]} · seqrec` : "seqrec";
  const main = byId("main");
  main.dataset.view = known ? name : "";
  if (!known) {
    main.replaceChildren(pageHead("There is no such page", "The address names no view of the console."), h("a", { href: "#/try" }, "Go to Try"));
    return;
  }
  main.setAttribute("aria-busy", "true");
  try {
    const view = await import(`./views/${name}.js`);
    if (signal.aborted) return;
    await view.render(main, { rest, query, signal });
  } catch (problem) {
    if (signal.aborted || problem.name === "AbortError") return;
    if (!(problem instanceof Problem)) {
      main.replaceChildren(pageHead(known[1]), problemBox({ title: "This view could not be shown", detail: String(problem.message) }, show));
      main.removeAttribute("aria-busy");
      throw problem;
    }
    main.replaceChildren(pageHead(known[1]), problemBox(problem, show));
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  if (!first) {
    window.scrollTo(0, 0);
    const title = main.querySelector("h1");
    if (!main.querySelector(":focus")) title.focus({ preventScroll: true });
    announce(title.textContent);
  }
  first = false;
}

window.addEventListener("hashchange", () => {
  dismissed = false;
  show();
});

// --- the state of the connection ---

let interrupted = false;

connection.addEventListener("state", ({ detail: { kind, text } }) => {
  const banner = byId("banner");
  banner.hidden = kind === "ready";
  banner.className = `banner ${kind}`;
  if (kind === "loading") banner.textContent = `The model is loading. ${text}`;
  if (kind === "offline") {
    banner.replaceChildren("The service cannot be reached. The console keeps trying. ", button("Reload the page", () => location.reload()));
  }
  setHealth(kind === "ready" ? "ready" : kind, { ready: "Ready", loading: "Loading", offline: "Offline" }[kind]);
  if (kind === "offline") interrupted = true;
  else if (kind === "ready" && interrupted) {
    interrupted = false;
    announce("The service answers again.");
    show();
  }
});

function setHealth(kind, text) {
  byId("health").dataset.state = kind;
  byId("health-text").textContent = text;
}

async function watchHealth() {
  try {
    const state = await readyz();
    if (state.status !== "ready") setHealth("loading", "Not ready");
    else if (state.degraded?.length) setHealth("degraded", "Degraded");
    else setHealth("ready", "Ready");
  } catch {
    setHealth("offline", "Offline");
  }
  setTimeout(watchHealth, HEALTH_POLL);
}

// --- the API key of this tab, where the service needs one ---

let dismissed = false; // until the reader asks for the form again, or goes elsewhere

function askForKey() {
  if (dismissed || document.querySelector("#key-form")) return;
  const input = h("input", { type: "password", required: true, ...PLAIN, placeholder: "seqrec_…" });
  const refused = h("p.refused", { role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      const known = await login(input.value);
      if (known) return dialog.close("in");
      refused.textContent = "The service does not accept this key.";
    } catch (problem) {
      refused.textContent = problem.message;
    }
    input.select();
  } },
    h("h2", { id: "key-title" }, "This service needs an API key"),
    h("p", "It is kept in this tab until you close it. Scopes decide what you see; ", code("seqrec keys create NAME --scope admin"), " makes a key for all of it."),
    h("label.field", "API key", input),
    refused,
    h("div.row.end", button("Not now", () => dialog.close("")), h("button.primary", { type: "submit" }, "Sign in")));
  const dialog = openDialog({ id: "key-form", "aria-labelledby": "key-title" }, () => {
    dismissed = dialog.returnValue !== "in";
    showSession(true);
    if (!dismissed) show();
  }, form);
}

/** The button below the views; `needed`: whether requests were refused for want of a key. */
function showSession(needed = false) {
  const signedIn = currentKey() !== null;
  byId("session").hidden = !signedIn && !needed;
  byId("session").textContent = signedIn ? "Sign out" : "Sign in";
}

byId("session").addEventListener("click", () => {
  if (currentKey() !== null) {
    logout();
    location.reload();
    return;
  }
  dismissed = false;
  askForKey();
});
window.addEventListener("seqrec-key-needed", () => {
  showSession(true);
  askForKey();
});
showSession();

// --- theme ---

const THEMES = { auto: "System", light: "Light", dark: "Dark" };

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${THEMES[name]}`;
  byId("theme").dataset.now = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(byId("theme").dataset.now) + 1) % names.length]);
});
let stored = "auto";
try {
  stored = localStorage.getItem("theme") ?? "auto";
} catch {
  // as above
}
setTheme(stored in THEMES ? stored : "auto");

show();
watchHealth();
