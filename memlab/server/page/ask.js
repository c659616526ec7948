// The view where objects are given: pictures by drop, paste or choice, rows of numbers, or texts; and what is answered.

import { answerBody } from "./answers.js";
import { bodyOf, teach } from "./changes.js";
import { byId, className, element, replaceKeepingFocus } from "./elements.js";
import { labelChoice } from "./labels.js";
import { info, known } from "./memory.js";
import { during, errorLine } from "./progress.js";
import { RefusedError, request, withQuery } from "./server.js";
import { bytes, counted, percent } from "./words.js";

const TOGETHER = 16; // objects of one request at most
const COVERAGE = 0.95;
const BETWEEN = " | "; // the texts of a pair

/**
 * @typedef {{name: string, file: ?File, row: ?Array, url: ?string, answer: ?Object, error: ?Error, open: boolean,
 *   taught: ?string}} Asked
 */
let asked = [];
let asking = 0; // questions so far: the answer to one is shown if no other was asked meanwhile

/** Prepare the view, once. */
export function start() {
  byId("files").addEventListener("change", (event) => {
    askFiles([...event.target.files]);
    event.target.value = "";
  });
  byId("ask-rows").addEventListener("submit", (event) => {
    event.preventDefault();
    askRows(byId("rows").value);
  });
  document.addEventListener("paste", (event) => given(event.clipboardData, event));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    event.preventDefault();
    given(event.dataTransfer, event);
  });
}

/** Show the view for the memory as it is; answers are asked for again. */
export function show() {
  const wanted = info.input_shape.map((side) => side ?? "any number of").join(" × ");
  byId("ask-pictures").hidden = !info.picture;
  byId("ask-rows").hidden = info.picture;
  byId("ask-lead").textContent = info.picture
    ? "Give it a picture, and see what it is taken for and which stored examples say so."
    : `Give it ${kind().toLowerCase()}, and see what they are taken for and which stored examples say so.`;
  byId("rows-label").textContent = kind();
  byId("rows-hint").textContent = `One object a line${told(wanted)} You can drop a text file too.`;
  return asked.length ? answerAll(false) : undefined;
}

/** What objects are, if they are no pictures. */
function kind() {
  if (info.texts) return info.texts.length > 1 ? "Pairs of texts" : "Texts";
  return info.columns ? "Rows of a table" : "Rows of numbers";
}

/** How one is written on its line. */
function told(wanted) {
  if (info.texts) return info.texts.length > 1 ? `: ${info.texts.join(" and ")}, with a tab or ${BETWEEN.trim()} between.` : ".";
  if (info.columns)
    return `: ${info.columns.join(", ")}, with commas, semicolons or tabs between and nothing where a cell is missing; or in another order below a line of names.`;
  return `, each of ${wanted} numbers with commas, semicolons or spaces between.`;
}

/** Files or text that were dropped or pasted. */
async function given(data, event) {
  if (info === null || document.querySelector("dialog[open]")) return;
  const files = [...data.files];
  const inField = event.target.matches?.("input, textarea");
  if (!files.length && (inField || info.picture)) return;
  location.hash = "#ask";
  if (info.picture) {
    askFiles(files);
    return;
  }
  const text = files.length ? await files[0].text() : data.getData("text/plain");
  byId("rows").value = text.trim();
  askRows(text);
}

function askFiles(files) {
  if (files.length) ask(files.map((file) => ({ name: file.name, file, url: URL.createObjectURL(file) })));
}

async function askRows(text) {
  await known;
  try {
    ask(parsed(text).map((row, place) => ({ name: info.texts ? [row].flat().join(BETWEEN) : `row ${place + 1}`, row })));
  } catch (error) {
    byId("ask-place").replaceChildren(errorLine(error));
  }
}

/** Rows of numbers as raw inputs, or texts; what cannot be read is told with its line. */
function parsed(text) {
  if (info.texts) return texts(text);
  if (info.columns) return ofTable(text);
  const size = info.input_shape.reduce((product, side) => product * side, 1);
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const rows = lines.flatMap((line, place) => {
    if (!line) return [];
    const words = line.split(/[\s,;]+/).filter(Boolean);
    const numbers = words.map(Number);
    const bad = numbers.findIndex((number) => !Number.isFinite(number));
    if (bad >= 0) throw new RefusedError(`Line ${place + 1}: ${words[bad]} is not a number.`);
    if (info.input_shape[0] === null) return [steps(numbers, info.input_shape[1], place)];
    if (numbers.length !== size) throw new RefusedError(`Line ${place + 1}: has ${numbers.length} numbers; must have ${size}.`);
    return [nested(numbers, info.input_shape)];
  });
  if (!rows.length) throw new RefusedError("There are no numbers; must be a line of them for each object.");
  return rows;
}

/** Texts, or pairs of them. */
function texts(text) {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  if (!lines.length) throw new RefusedError("There is no text; must be a line for each object.");
  if (info.texts.length === 1) return lines;
  return lines.map((line, place) => {
    const both = line.split(line.includes("\t") ? "\t" : BETWEEN).map((each) => each.trim());
    if (both.length !== 2) throw new RefusedError(`Line ${place + 1}: has ${counted(both.length, "text")}; must have two, with a tab or ${BETWEEN.trim()} between.`);
    return both;
  });
}

/** A sequence, the numbers of one step after those of the other. */
function steps(numbers, each, place) {
  if (numbers.length % each) throw new RefusedError(`Line ${place + 1}: has ${numbers.length} numbers; must have ${each} for each step.`);
  return nested(numbers, [numbers.length / each, each]);
}

/** Rows of a table, by the names in the first line if all are there, else in the order of training. */
function ofTable(text) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const separator = ["\t", ";", ","].find((each) => lines[0]?.includes(each)) ?? ",";
  const cells = lines.map((line) => line.split(separator).map((cell) => cell.trim()));
  const named = cells.length && info.columns.every((name) => cells[0].includes(name));
  const names = named ? cells.shift() : info.columns;
  if (!cells.length) throw new RefusedError("There are no rows; must be a line for each object.");
  return cells.map((row, place) => {
    if (row.length !== names.length) throw new RefusedError(`Row ${place + 1}: has ${row.length} cells; must have ${names.length}.`);
    return info.columns.map((name) => row[names.indexOf(name)] || null);
  });
}

function nested(numbers, shape) {
  if (shape.length < 2) return numbers;
  const size = numbers.length / shape[0];
  return Array.from({ length: shape[0] }, (_, place) => nested(numbers.slice(place * size, (place + 1) * size), shape.slice(1)));
}

async function ask(objects) {
  await known;
  for (const each of asked) if (each.url) URL.revokeObjectURL(each.url);
  asked = objects;
  asked[0].open = true;
  byId("ask").classList.add("asked");
  byId("answers").replaceChildren();
  return answerAll(true);
}

/**
 * Ask about all objects, for the first time or again after a change. Sets of classes wait after a change until the
 * server has measured anew how well classes fit, so that answers are shown without them meanwhile.
 */
async function answerAll(first) {
  const mine = ++asking;
  const objects = asked;
  for (const each of objects) each.error = tooLarge(each);
  const passes = [[`Reading ${counted(objects.length, "object")}`, first && info.calibrated ? COVERAGE : null]];
  if (!first && info.calibrated) passes.push(["Measuring anew how well classes fit", COVERAGE]);
  for (const [words, coverage] of passes) {
    const parts = batches(objects.filter(({ error }) => !error));
    await during(byId("ask-place"), words, (tell) => answerIn(parts, coverage, tell, mine));
    if (mine !== asking) return;
    const shown = objects.filter((each) => each.answer || each.error);
    replaceKeepingFocus(byId("answers"), ...together(shown), ...shown.map(article));
    if (first && shown.length) byId("answers").querySelector("h2").focus();
  }
}

async function answerIn(parts, coverage, tell, mine) {
  let done = 0;
  for (const some of parts) {
    if (mine !== asking) return;
    await answer(some, coverage);
    done += some.length;
    if (parts.length > 1) tell(`${counted(done, "object")} done`);
  }
}

function tooLarge({ file }) {
  if (!file || file.size <= largest()) return null;
  return new RefusedError(`It has ${bytes(file.size)}; the server takes at most ${bytes(largest())}.`);
}

/** Objects in parts of which each fits into a request. */
function batches(objects) {
  const parts = [];
  let room = 0;
  for (const each of objects) {
    const size = each.file ? each.file.size : 0;
    if (!parts.length || parts.at(-1).length === TOGETHER || size > room) {
      parts.push([]);
      room = largest();
    }
    parts.at(-1).push(each);
    room -= size;
  }
  return parts;
}

/** Bytes that the files of a request may have; the form around them takes some of what the server allows. */
function largest() {
  return info.max_bytes - 2 ** 14;
}

/** Ask about objects; if they are refused together, one at a time, to know which. */
async function answer(objects, coverage) {
  const path = withQuery("predict", { coverage });
  try {
    const { answers } = await request("POST", path, bodyOf(objects));
    objects.forEach((each, place) => Object.assign(each, { answer: answers[place], error: null }));
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
    if (objects.length === 1) Object.assign(objects[0], { answer: null, error });
    else for (const each of objects) await answer([each], coverage);
  }
}

/** What can be done with all objects at once. */
function together(objects) {
  const good = objects.filter((each) => each.answer);
  if (good.length < 2 || !info.writable) return [];
  const told = element("div", { class: "place" });
  const choice = labelChoice({
    legend: `All ${good.length} are a …`,
    verb: "Teach all",
    take: (label) => taught(good, label, told),
    key: "all",
  });
  return [element("div", { class: "panel" }, choice, told)];
}

async function taught(objects, label, place) {
  const done = await teach(objects, label, place);
  if (done) for (const each of objects) each.taught = label;
  return done;
}

/** Why an object that was taught is answered otherwise still; null if it is not. */
function outvoted({ taught: label, answer: { label: answered, evidence } }) {
  const own = evidence.find((piece) => piece.label === label);
  if (!own || label === answered) return null;
  return element(
    "p",
    { class: "hint" },
    "Taught as ",
    className(label),
    `, and outvoted: the nearest example of it has ${percent(own.weight)} of the weight. Teach more like it.`,
  );
}

function article(each, place) {
  const id = `answer-${place}`;
  const image = each.url && element("img", { src: each.url, alt: `what was asked about: ${each.name}` });
  if (each.error) {
    const heading = element("h2", { id, tabindex: "-1" }, each.name);
    return element("article", { class: "answer", "aria-labelledby": id }, element("div", { class: "answer-head" }, image, heading), errorLine(each.error));
  }
  const { label, probabilities } = each.answer;
  const told = element("div", { class: "place" });
  const body = answerBody(each.answer, {
    key: id,
    coverage: COVERAGE,
    name: each.name,
    teach: (chosen) => taught([each], chosen, told),
  });
  const shown = [told, outvoted(each), element("div", { class: "halves" }, ...body)].filter(Boolean);
  const details = element("details", { open: each.open, ontoggle: () => (each.open = details.open) });
  details.append(element("summary", {}, "Why, how sure, and teaching"), ...shown);
  return element(
    "article",
    { class: "answer", "aria-labelledby": id },
    element(
      "div",
      { class: "answer-head" },
      image,
      element(
        "div",
        {},
        element("p", { class: "hint" }, each.name),
        element("h2", { id, tabindex: "-1", "data-focus": id }, element("span", { class: "class" }, label), " ", element("span", { class: "sure" }, percent(probabilities[label]))),
      ),
    ),
    ...(asked.length > 1 ? [details] : shown),
  );
}
