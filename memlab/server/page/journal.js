// The view of all changes.

import { undo } from "./changes.js";
import { button, byId, element, replaceKeepingFocus } from "./elements.js";
import { info } from "./memory.js";
import { openObject } from "./objects.js";
import { during } from "./progress.js";
import { request, withQuery } from "./server.js";
import { change } from "./words.js";

const PAGE = 50;
const IDS = 3;
const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

let wanted = PAGE;

/** Nothing is to be prepared. */
export function start() {}

/** Show the view for the memory as it is. */
export function show() {
  const place = byId("journal-place");
  return during(place, "Reading the journal", async () => {
    const { changes } = await request("GET", withQuery("journal", { limit: wanted }));
    const more = () => {
      wanted += PAGE;
      return show();
    };
    replaceKeepingFocus(
      byId("journal-shown"),
      ...(changes.length
        ? [
            info.writable ? button("Undo last change", () => undo(place), { "data-focus": "undo" }) : "",
            element("ol", { class: "journal", role: "list" }, ...changes.map(line)),
            changes.length < wanted ? "" : button("Show more", more, { "data-focus": "more" }),
          ]
        : [element("p", { class: "hint" }, "It is as it was trained: nothing was changed yet.")]),
    );
  });
}

function line(each) {
  const ids = (each.ids || []).slice(0, IDS);
  return element(
    "li",
    {},
    element("span", { class: "number" }, String(each.change)),
    element(
      "div",
      {},
      element("p", {}, ...change(each)),
      element("p", { class: "hint" }, element("time", { datetime: each.when }, WHEN.format(new Date(each.when))), `, ${each.who}`),
    ),
    element(
      "div",
      { class: "ids" },
      ...(each.what === "forget" ? [] : ids.map((id) => button(`#${id}`, () => openObject(id), { class: "quiet", "aria-label": `Open example ${id}` }))),
    ),
  );
}
