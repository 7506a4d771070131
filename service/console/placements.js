// The rules of placements: stored, changed and deleted.

import { call, remove } from "./api.js";
import { PLAIN, announce, button, confirmed, h, hint, problemBox } from "./dom.js";

/**
 * A form that is closed at first. `chosen()`: resolves to the placement to begin with, undefined: a new one;
 * `changed(name)` is called after one was stored, or "" after it was deleted. `show()` of the form begins anew.
 */
export function rulesForm(chosen, changed) {
  const name = h("input", { required: true, ...PLAIN, placeholder: "home-page" });
  const rules = h("textarea.code", { rows: "5", ...PLAIN });
  const gone = button("Delete", end, { kind: "danger-quiet" });
  const problem = h("div");
  const path = () => `placements/${encodeURIComponent(name.value)}`;

  async function attempt(work, now, told) {
    try {
      await work();
      await changed(now);
      announce(told);
      box.firstChild.focus();
    } catch (error) {
      if (error.status === undefined && !(error instanceof SyntaxError)) throw error;
      problem.replaceChildren(problemBox(error.status === undefined ? { title: "The rules are not JSON", detail: error.message } : error));
    }
  }

  async function end() {
    if (await confirmed("Delete this placement?", `Requests that name ${name.value} are refused from then on.`, "Delete")) attempt(() => remove(path()), "", `${name.value} is deleted.`);
  }

  const form = h("form.attribute-form", { onsubmit: (event) => {
    event.preventDefault();
    attempt(() => call("PUT", path(), JSON.parse(rules.value)), name.value, `${name.value} is stored.`);
  } },
    h("label.field", "Name", name),
    h("label.field", "Rules, as JSON", rules),
    problem,
    h("div.row", h("button.primary", { type: "submit" }, "Store"), gone),
    hint("Everybody's next request that names it follows them: filter, boost, pin, diversity, at_most, experiment and others, as PUT /placements takes them."));
  const box = h("details", { ontoggle: () => box.open && box.show() }, h("summary", "Write rules"), form);
  box.show = async () => {
    const one = await chosen();
    gone.hidden = !one;
    name.value = one?.name ?? "";
    rules.value = JSON.stringify(one?.rules ?? { diversity: 0.5 }, null, 1);
    problem.replaceChildren();
  };
  return box;
}
