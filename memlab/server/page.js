// The page of `memlab serve`: its views, and what is around them.

import * as ask from "./page/ask.js";
import { tellNothing, undo } from "./page/changes.js";
import * as doubts from "./page/doubts.js";
import { byId, opened } from "./page/elements.js";
import * as examples from "./page/examples.js";
import * as journal from "./page/journal.js";
import * as map from "./page/map.js";
import { info, onChange, refresh } from "./page/memory.js";
import { during } from "./page/progress.js";
import { enterToken } from "./page/token.js";
import { counted } from "./page/words.js";

const VIEWS = { ask, doubts, map, examples, journal };
const KEYS = "memlab keys off";

let shown = null;
const stale = new Map(); // view -> ids that were changed since it was shown; of one that was never shown, none

async function go() {
  const wanted = location.hash.slice(1) || "ask";
  if (!(wanted in VIEWS)) return;
  const first = shown === null;
  for (const name of Object.keys(VIEWS)) byId(name).hidden = name !== wanted;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  shown = wanted;
  const title = byId(`${wanted}-title`);
  document.title = `${title.textContent} - memlab`;
  if (!first) {
    tellNothing();
    window.scrollTo(0, 0);
    title.focus({ preventScroll: true });
  }
  await showIfStale();
}

async function showIfStale() {
  if (!stale.has(shown) || info === null) return;
  const ids = stale.get(shown);
  stale.delete(shown);
  await VIEWS[shown].show(ids);
}

function changed(ids) {
  for (const name of Object.keys(VIEWS)) stale.set(name, [...(stale.get(name) || []), ...ids]);
  const about = [`${counted(info.objects, "example")} of ${counted(Object.keys(info.classes).length, "class", "classes")}`];
  if (info.data) about.unshift(info.data);
  byId("about").textContent = about.join(": ");
  byId("undo").hidden = !info.writable || !info.changes;
  byId("open-token").hidden = !info.writable || !info.needs_token;
  return showIfStale();
}

function pressed(event) {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.altKey || event.metaKey || localStorage.getItem(KEYS)) return;
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) location.hash = `#${view}`;
  else if (event.key === "?") help();
  else if (event.key === "u" && !byId("undo").hidden) undo();
  else return;
  event.preventDefault();
}

function help() {
  return opened(byId("help"));
}

function serverChanged({ detail: { gone } }) {
  const banner = byId("gone");
  banner.hidden = !gone;
  banner.textContent = gone
    ? "The server does not answer. Is memlab serve still running? This page tries again every two seconds; what it shows may be old."
    : "";
  if (!gone) begin();
}

/** Read the memory; what is shown follows. */
function begin() {
  return during(byId("news-place"), "Opening the memory", () => refresh());
}

function start() {
  for (const view of Object.values(VIEWS)) view.start();
  for (const name of Object.keys(VIEWS)) stale.set(name, []);
  onChange(changed);
  document.addEventListener("server", serverChanged);
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", go);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("content").focus();
  });
  byId("undo").addEventListener("click", () => undo());
  byId("open-token").addEventListener("click", enterToken);
  byId("open-help").addEventListener("click", help);
  const keys = byId("keys-on");
  keys.checked = !localStorage.getItem(KEYS);
  keys.addEventListener("change", () => (keys.checked ? localStorage.removeItem(KEYS) : localStorage.setItem(KEYS, "1")));
  go();
  begin();
}

start();
