// The view of labels that look wrong, gone through one after the other, by keyboard too.

import { forget, relabel, tell } from "./changes.js";
import { button, byId, className, element } from "./elements.js";
import { count, counted, percent } from "./words.js";
import { info } from "./memory.js";
import { card, cards, openObject, picture } from "./objects.js";
import { during } from "./progress.js";
import { request, withQuery } from "./server.js";

const LISTED = 50;
const MOST = 200; // that the server gives evidence for
const PAIRS = 12;
const BEAT = 1000; // ms between looks at how far an audit is

let found = null; // what the audit said
let items = []; // its labels, each with what became of it

/** Prepare the view, once. */
export function start() {
  byId("doubts-found").addEventListener("keydown", pressed);
}

/** Show the view; of a change, with the ids of objects that are others now. */
export async function show(changed) {
  if (!info.writable) {
    byId("doubts-place").replaceChildren(element("p", { class: "hint" }, "This memory has one key for each class, and no examples whose labels could be wrong."));
    return;
  }
  if (found === null) await read();
  else await during(byId("doubts-place"), "Reading what was changed", () => settleAll(changed));
}

async function read() {
  const place = byId("doubts-place");
  const words = `Reading each of ${counted(info.objects, "example")} with all the others`;
  await during(place, words, async (tell) => {
    const kept = keptLabels();
    const timer = setInterval(() => tellProgress(words, tell), BEAT);
    try {
      found = await request("GET", withQuery("audit", { limit: Math.min(LISTED + kept.length, MOST) }));
    } finally {
      clearInterval(timer);
    }
    const wanted = found.labels.filter((each) => !kept.includes(mark(each)));
    items = wanted.map((each) => ({ ...each, kept: false, fate: null }));
    draw(found.labels.length - wanted.length);
  });
}

async function tellProgress(words, tell) {
  const { running, done, total } = await request("GET", "audit/progress").catch(() => ({ running: false }));
  if (running) tell(`${words}: ${percent(done / total)} done`);
}

function draw(keptBefore) {
  const wrong = found.suspicious - keptBefore;
  const heading = wrong ? `${counted(wrong, "label")} ${wrong === 1 ? "looks" : "look"} wrong` : "No label looks wrong";
  const more = wrong - items.length;
  const list = element("ol", { class: "doubts", role: "list" }, ...items.map((item) => element("li", {}, articleOf(item))));
  byId("doubts-found").replaceChildren(
    element("h2", { tabindex: "-1" }, heading),
    element(
      "div",
      { class: "row" },
      element("progress", { id: "doubts-progress", max: Math.max(items.length, 1), value: 0, "aria-labelledby": "doubts-count" }),
      element("span", { id: "doubts-count" }),
      button("Read all again", readAgain, { class: "quiet" }),
      keptBefore ? button(`Show ${keptBefore} kept before`, forgetKept, { class: "quiet" }) : null,
    ),
    ...(more > 0 ? [element("p", { class: "hint" }, `These are the most doubtful; ${count(more)} more come when they are seen to.`)] : []),
    element(
      "p",
      { class: "hint wide-only" },
      ...["j", " and ", "k", " go through them, ", "Enter", " takes the suggested label, ", "s", " keeps it as it is, ", "d", " forgets the example."].map(
        (word, place) => (place % 2 ? word : element("kbd", {}, word)),
      ),
    ),
    list,
    duplicates(),
    classTable(),
  );
  items.forEach(mend);
  reach(0, false);
  progress();
}

function readAgain() {
  found = null;
  return read();
}

function articleOf(item) {
  item.place = element("div", { class: "place" });
  item.actions = element("div", { class: "row" });
  item.article = element(
    "article",
    { class: "doubted", tabindex: "-1", "aria-label": `Example ${item.id}: labelled ${item.label}, others say ${item.suggested}`, onfocusin: () => current(item) },
    element(
      "div",
      { class: "object-head" },
      picture(item.id, item.label),
      element(
        "div",
        {},
        element("h3", {}, className(item.label), ", or rather ", className(item.suggested), "?"),
        element("p", {}, `The other examples give ${percent(item.suggested_mass)} to ${item.suggested} and ${percent(item.own_mass)} to ${item.label}.`),
        element("p", { class: "source" }, `example ${item.id}, ${item.source || "of unknown source"}`),
      ),
    ),
    element("div", { class: "beside" }, cards(item.evidence, { answered: item.suggested })),
    item.actions,
    item.place,
  );
  return item.article;
}

/** Show what became of a label, or what can be done. */
function mend(item) {
  if (item.actions.contains(document.activeElement)) item.article.focus();
  item.article.classList.toggle("done", item.fate !== null);
  item.actions.replaceChildren(
    ...(item.fate === null
      ? [
          button(`Change to ${item.suggested}`, () => take(item), { class: "primary" }),
          button(`Keep ${item.label}`, () => keep(item)),
          button("Another label …", () => openObject(item.id)),
          button("Forget …", () => drop(item), { class: "danger" }),
        ]
      : [element("p", { class: "fate" }, item.fate), item.kept ? button("Doubt it again", () => doubt(item), { class: "quiet" }) : ""]),
  );
}

async function take(item) {
  if (await relabel(item.id, item.suggested, item.place)) next(item);
}

async function drop(item) {
  if (await forget(item.id, item.place)) next(item);
  else item.article.focus();
}

function keep(item) {
  keepLabels([...keptLabels(), mark(item)]);
  Object.assign(item, { kept: true, fate: `Kept as ${item.label}; this browser remembers it.` });
  mend(item);
  tell(`Example ${item.id} stays `, className(item.label), ".");
  next(item);
}

function doubt(item) {
  keepLabels(keptLabels().filter((each) => each !== mark(item)));
  Object.assign(item, { kept: false, fate: null });
  mend(item);
  progress();
  item.article.focus();
}

/** After a change: what became of the objects that it was made to. */
async function settleAll(changed) {
  const ids = new Set(changed);
  await Promise.all(items.filter((item) => ids.has(item.id)).map(settle));
  progress();
}

async function settle(item) {
  const { examples } = await request("GET", withQuery("examples", { after: item.id - 1, limit: 1 }));
  const now = examples.find((each) => each.id === item.id);
  item.kept = false;
  if (now === undefined) item.fate = "Forgotten for good.";
  else item.fate = now.label === item.label ? null : `Changed to ${now.label}.`;
  mend(item);
}

function progress() {
  const done = items.filter((item) => item.fate !== null).length;
  byId("doubts-progress").value = done;
  byId("doubts-count").textContent = items.length
    ? `${done} of ${items.length} seen to${done === items.length ? "; read all again to see what is left" : ""}`
    : `All ${count(found.objects)} examples are answered as they are labelled`;
}

function current(item) {
  for (const each of items) each.article.tabIndex = each === item ? 0 : -1;
}

function reach(place, focus = true) {
  const item = items[place];
  if (!item) return;
  current(item);
  if (focus) item.article.focus();
}

/** On to the next label that is not seen to, below or else from the top. */
function next(item) {
  progress();
  const at = items.indexOf(item);
  const open = [...items.slice(at + 1), ...items.slice(0, at)].find((each) => each.fate === null);
  if (open) reach(items.indexOf(open));
  else byId("doubts-found").querySelector("h2").focus();
}

function pressed(event) {
  const article = event.target.closest("article.doubted");
  if (!article || event.ctrlKey || event.altKey || event.metaKey) return;
  const item = items.find((each) => each.article === article);
  const at = items.indexOf(item);
  const open = item.fate === null && !item.place.hasAttribute("aria-busy");
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  if (event.key in moves) reach(Math.min(Math.max(at + moves[event.key], 0), items.length - 1));
  else if (event.key === "Enter" && event.target === article) open && take(item);
  else if (event.key === "s") open && keep(item);
  else if (event.key === "d" || event.key === "Delete") open && drop(item);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function duplicates() {
  const pairs = found.duplicates;
  if (!pairs.length) return element("p", { class: "hint" }, "No two examples are nearly the same.");
  const shown = (pair) =>
    element(
      "li",
      { class: "pair" },
      ...pair.ids.map((id, place) => card({ id, label: pair.labels[place] })),
      pair.labels[0] === pair.labels[1] ? null : element("span", { class: "doubt-word" }, "under two labels"),
    );
  const told = [...pairs].sort((one, other) => (one.labels[0] === one.labels[1]) - (other.labels[0] === other.labels[1]));
  const list = (some) => element("ul", { class: "pairs", role: "list" }, ...some.map(shown));
  const rest = told.slice(PAIRS);
  return element(
    "section",
    {},
    element("h2", {}, `${counted(pairs.length, "pair")} nearly the same`),
    list(told.slice(0, PAIRS)),
    rest.length ? element("details", {}, element("summary", {}, `${count(rest.length)} more`), list(rest)) : null,
  );
}

function classTable() {
  const head = ["Class", "Examples", "Mean weight of the own class", "Answered as labelled"];
  const rows = found.classes.map((each) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, each.name),
      ...[count(each.objects), percent(each.own_mass), percent(each.answered)].map((words) => element("td", {}, words)),
    ),
  );
  return element(
    "section",
    {},
    element("h2", {}, "How each class holds together"),
    element(
      "table",
      { class: "figures" },
      element("thead", {}, element("tr", {}, ...head.map((words) => element("th", { scope: "col" }, words)))),
      element("tbody", {}, ...rows),
    ),
  );
}

/** Labels that somebody has said are right, of this memory. */
function keptLabels() {
  return JSON.parse(localStorage.getItem(`memlab kept ${info.fingerprint}`) || "[]");
}

function keepLabels(marks) {
  localStorage.setItem(`memlab kept ${info.fingerprint}`, JSON.stringify([...new Set(marks)]));
}

function mark({ id, label }) {
  return `${id} ${label}`;
}

function forgetKept() {
  keepLabels([]);
  return readAgain();
}
