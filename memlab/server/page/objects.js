// Stored examples: small, as evidence or in a list, and closely, with what the others say and what can be done.

import { forget, relabel } from "./changes.js";
import { button, byId, className, element, opened } from "./elements.js";
import { labelChoice } from "./labels.js";
import { info, pictureOf } from "./memory.js";
import { during } from "./progress.js";
import { request } from "./server.js";
import { likeliest, percent } from "./words.js";

/** The picture of a stored example; null if none is kept. */
export function picture(id, label, properties = {}) {
  const src = pictureOf(id);
  return src && element("img", { src, alt: `example ${id}, ${label}`, loading: "lazy", ...properties });
}

/**
 * A stored example as a button that opens it.
 * @param {Object} piece id, label, source, and weight if it is evidence.
 * @param {string} answered the class answered, of evidence: what votes for it looks otherwise than what does not.
 * @param {function(number)} open what a click does.
 * @param {string} key by which the focus is found again.
 */
export function card(piece, { answered = null, open = openObject, key = "" } = {}) {
  const weight = piece.weight === undefined ? null : percent(piece.weight);
  const vote = answered === null ? "" : piece.label === answered ? " same" : " other";
  const name = [`example ${piece.id}`, piece.label, weight && `weight ${weight}`, piece.source].filter(Boolean);
  return element(
    "button",
    {
      type: "button",
      class: `card${vote}`,
      "aria-label": name.join(", "),
      title: piece.source,
      onclick: () => open(piece.id),
      "data-focus": `${key} ${piece.id}`,
    },
    picture(piece.id, piece.label, { alt: "" }),
    element("span", { class: "card-label" }, piece.label),
    weight && element("span", { class: "card-weight" }, weight),
    element("span", { class: "card-id" }, `#${piece.id}`),
    piece.source ? element("span", { class: "card-source" }, tail(piece.source)) : null,
  );
}

/** Several of them. */
export function cards(pieces, options) {
  return element("ul", { class: "cards", role: "list" }, ...pieces.map((piece) => element("li", {}, card(piece, options))));
}

/** Open an example in the dialog, which closes when it is changed. */
export function openObject(id) {
  const dialog = byId("object");
  const place = dialog.querySelector(".object");
  const seen = [];
  const go = (next) => {
    seen.push(next);
    const back = seen.length > 1 ? () => { seen.pop(); go(seen.pop()); } : null;
    return showObject(place, next, { open: go, back, after: () => dialog.close(), title: "object-title" });
  };
  const closed = opened(dialog).then(() => place.replaceChildren());
  go(id);
  return closed;
}

/**
 * Show an example closely.
 * @param {HTMLElement} place for it.
 * @param {number} id which.
 * @param {function(number)} open shows a neighbour that was clicked.
 * @param {function()|null} back goes to the example before.
 * @param {function()} after is called when it was changed.
 * @param {string} title id of its heading.
 * @param {boolean} focus whether the heading gets the focus.
 */
export async function showObject(place, id, { open, back = null, after, title, focus = true }) {
  const told = element("div", { class: "place" });
  place.replaceChildren(element("h2", { id: title, tabindex: "-1" }, `Example ${id}`), told);
  await during(told, "Reading the example", async () => {
    const alone = info.objects < 2;
    const [object, row] = await Promise.all([
      request("GET", `examples/${id}`),
      alone ? null : request("GET", `examples/${id}/neighbours`),
    ]);
    const heading = element("h2", { id: title, tabindex: "-1" }, `Example ${id}: `, className(object.label));
    place.replaceChildren(
      ...[
        back && button("← Back", back, { class: "quiet" }),
        element("div", { class: "object-head" }, picture(id, object.label), element("div", {}, heading, source(object))),
        row && verdict(row, object.label),
        row && cards(row.evidence, { answered: row.label, open }),
        info.writable ? actions(object, row, told, after) : null,
        told,
      ].filter(Boolean),
    );
    if (focus) heading.focus({ preventScroll: true });
  });
}

function source(object) {
  return element("p", { class: "source" }, object.source || "of unknown source");
}

function verdict(row, label) {
  const share = percent(row.probabilities[row.label]);
  const agree = row.label === label;
  return element(
    "p",
    { class: agree ? "verdict good" : "verdict doubt" },
    agree ? "All other examples agree: they say " : "All other examples disagree: they say ",
    className(row.label),
    ` (${share}). These weigh most:`,
  );
}

function actions(object, row, told, after) {
  const done = async (work) => {
    const good = await work;
    if (good) after();
    return good;
  };
  return element(
    "div",
    { class: "actions" },
    labelChoice({
      legend: "Is its label wrong? It is a …",
      likeliest: row ? likeliest(row.probabilities).map(([name]) => name) : [],
      verb: "Change",
      current: object.label,
      take: (label) => done(relabel(object.id, label, told)),
    }),
    button("Forget …", () => done(forget(object.id, told)), { class: "danger" }),
  );
}

/** The end of a path, which tells files apart. */
function tail(path) {
  return path.length > 24 ? `…${path.slice(-23)}` : path;
}
