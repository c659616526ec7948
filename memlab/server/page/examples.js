// The view of what is stored, class by class.

import { button, byId, element, replaceKeepingFocus } from "./elements.js";
import { classes, info } from "./memory.js";
import { cards } from "./objects.js";
import { during } from "./progress.js";
import { request, withQuery } from "./server.js";
import { counted } from "./words.js";

const PAGE = 60;

let pieces = [];
let asked = 0; // lists so far: one is shown if no other was asked for meanwhile

/** Prepare the view, once. */
export function start() {
  byId("by-class").addEventListener("change", () => load(PAGE));
  byId("examples-form").addEventListener("submit", (event) => {
    event.preventDefault();
    load(PAGE);
  });
}

/** Show the view for the memory as it is, as far as it was shown before. */
export function show() {
  const select = byId("by-class");
  const before = select.value;
  const options = classes().map((name) => element("option", { value: name }, `${name} (${info.classes[name]})`));
  select.replaceChildren(element("option", { value: "" }, `all (${info.objects})`), ...options);
  select.value = before in info.classes ? before : "";
  return load(Math.max(pieces.length, PAGE));
}

/** Show the first examples that are asked for, or more. */
function load(wanted) {
  const [label, source] = [byId("by-class").value, byId("by-source").value.trim()];
  return during(byId("examples-place"), "Looking up examples", async () => {
    const mine = ++asked;
    const found = [];
    let [after, total] = [null, 0];
    do {
      const reply = await request("GET", withQuery("examples", { label, source, after, limit: PAGE }));
      found.push(...reply.examples);
      [after, total] = [reply.next, reply.total];
    } while (after !== null && found.length < wanted);
    if (mine !== asked) return;
    pieces = found;
    const more = button("Show more", () => load(pieces.length + PAGE), { "data-focus": "more" });
    replaceKeepingFocus(
      byId("examples-shown"),
      element("h2", { tabindex: "-1" }, found.length < total ? `The first ${found.length} of ${counted(total, "example")}` : counted(total, "example")),
      cards(found, { key: "example" }),
      ...(after === null ? [] : [more]),
    );
  });
}
