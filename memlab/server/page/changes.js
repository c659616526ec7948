// Changes of the memory, each told with a way back where there is one.

import { button, byId, className, element, opened } from "./elements.js";
import { refresh } from "./memory.js";
import { during } from "./progress.js";
import { request } from "./server.js";
import { counted } from "./words.js";

/**
 * Take in objects as a class.
 * @param {Asked[]} objects what was asked about.
 * @param {string} label name of the class, a new one too.
 * @param {HTMLElement} place for progress and errors.
 */
export function teach(objects, label, place) {
  return changed(place, "Teaching", async () => {
    const { ids } = await request("POST", "examples", bodyOf(objects, label));
    return [ids, ["Taught as ", className(label), `: ${named(ids)}.`], true];
  });
}

/** Give a stored object another label. */
export function relabel(id, label, place) {
  return changed(place, "Changing the label", async () => {
    await request("PATCH", `examples/${id}`, { label });
    return [[id], [`Example ${id} is now `, className(label), "."], true];
  });
}

/** Take a stored object out for good, if that is confirmed; whether it was done. */
export async function forget(id, place) {
  byId("confirm-title").textContent = `Forget example ${id} for good?`;
  byId("confirm-words").textContent =
    "It cannot be brought back, and what was changed before can no longer be undone. The memory will answer as if it " +
    "had never held this example.";
  if ((await opened(byId("confirm"))) !== "yes") return false;
  return changed(place, "Forgetting", async () => {
    await request("DELETE", `examples/${id}`);
    return [[id], [`Example ${id} is forgotten for good.`], false];
  });
}

/** Take the last change back. */
export function undo(place = byId("news")) {
  return changed(place, "Undoing", async () => {
    const { what, ids } = await request("POST", "undo");
    const words = what === "add" ? `what was taught is out again: ${named(ids)}` : `the old label is back: ${named(ids)}`;
    return [ids, [`Undone; ${words}.`], false];
  });
}

/** Tell something that was done. */
export function tell(...words) {
  const dismiss = button("×", tellNothing, { class: "quiet", "aria-label": "Dismiss" });
  const focus = byId("news").contains(document.activeElement);
  byId("news").replaceChildren(element("p", {}, element("span", {}, ...words.filter(Boolean)), dismiss));
  if (focus) dismiss.focus();
}

/** Tell nothing any more of what was done. */
export function tellNothing() {
  if (byId("news").contains(document.activeElement)) byId("content").focus();
  byId("news").replaceChildren();
}

/** Make a change and tell of it; whether it was made. What is shown is read again meanwhile. */
async function changed(place, words, make) {
  let told;
  const done = await during(place, words, async () => {
    told = await make();
  });
  if (!done) return false;
  const [ids, news, undoable] = told;
  tell(...news, undoable ? button("Undo", () => undo(), { class: "quiet" }) : null);
  during(byId("news-place"), "Reading the memory", () => refresh(ids));
  return true;
}

function named(ids) {
  return ids.length === 1 ? `example ${ids[0]}` : counted(ids.length, "example");
}

/** What is sent to ask about objects, or to teach them. */
export function bodyOf(objects, label) {
  if (objects[0].file) {
    const form = new FormData();
    for (const each of objects) form.append("files", each.file, each.file.name);
    if (label !== undefined) form.append("label", label);
    return form;
  }
  const rows = { inputs: objects.map((each) => each.row) };
  return label === undefined ? rows : { ...rows, labels: label };
}
