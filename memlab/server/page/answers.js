// One answer of the memory: the class, how sure, why, and how far to trust it.

import { className, element } from "./elements.js";
import { labelChoice } from "./labels.js";
import { info } from "./memory.js";
import { cards } from "./objects.js";
import { count, likeliest, percent, trust } from "./words.js";

const BARS = 5;

/**
 * What is shown of an answer.
 * @param {Object} row the answer.
 * @param {string} key by which the focus is found again.
 * @param {number} coverage of its set.
 * @param {function(string)} teach takes the object in as a class.
 * @param {string} name what was asked about.
 */
export function answerBody(row, { key, coverage, teach, name }) {
  return [
    element("div", { class: "half" }, bars(row), ...judgement(row, coverage)),
    element("div", { class: "half" }, ...evidence(row, key), info.writable ? teaching(row, teach, name, key) : readOnly()),
  ];
}

function bars(row) {
  const shares = likeliest(row.probabilities);
  const table = (pairs) =>
    element(
      "table",
      { class: "bars" },
      element("thead", { class: "visually-hidden" }, element("tr", {}, element("th", {}, "Class"), element("th", {}, "Share"))),
      element("tbody", {}, ...pairs.map(bar)),
    );
  const rest = shares.slice(BARS);
  return element(
    "div",
    {},
    element("h3", {}, "Likeliest classes"),
    table(shares.slice(0, BARS)),
    rest.length
      ? element("details", {}, element("summary", {}, `The other ${count(rest.length)} have ${percent(sum(rest))}`), table(rest))
      : null,
  );
}

function sum(pairs) {
  return pairs.reduce((total, [, share]) => total + share, 0);
}

function bar([name, share]) {
  const fill = element("span", { class: "fill" });
  fill.style.width = `${100 * share}%`;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("span", {}, name)),
    element("td", { class: "track" }, element("span", { class: "rail" }, fill)),
    element("td", { class: "share" }, percent(share)),
  );
}

function teaching(row, teach, name, key) {
  return element(
    "div",
    {},
    element("h3", {}, "Teach it"),
    labelChoice({
      legend: `${name} is a …`,
      likeliest: likeliest(row.probabilities).map(([each]) => each),
      verb: "Teach",
      take: teach,
      key: `${key} teach`,
    }),
  );
}

function readOnly() {
  return element("p", { class: "hint" }, "This memory has one key for each class and cannot be taught.");
}

function evidence(row, key) {
  const heading = element("h3", {}, "Why");
  if (!row.evidence.length) return [heading, element("p", { class: "hint" }, "This memory keeps no examples, so it has none to show.")];
  const against = row.evidence.some((piece) => piece.label !== row.label);
  return [
    heading,
    element(
      "p",
      {},
      "These stored examples weighed most",
      against ? element("span", {}, "; framed by dashes, those that speak for another class than ", className(row.label)) : null,
      ".",
      info.writable ? " Open one to mend its label." : "",
    ),
    cards(row.evidence, { answered: row.label, key }),
  ];
}

function judgement(row, coverage) {
  const lines = trust(row, coverage, info.usual_novelty).map((each) =>
    element(
      "li",
      { class: each.tone },
      element("details", {}, element("summary", {}, element("span", {}, ...each.verdict)), element("p", {}, each.more)),
    ),
  );
  return [element("h3", {}, "How far to trust it"), element("ul", { class: "trust", role: "list" }, ...lines)];
}
