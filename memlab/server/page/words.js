// Numbers of an answer in words for somebody who does not know them.

import { className } from "./elements.js";

const RARE = 0.05; // what is as rare among known examples is doubted
const UNUSUAL = 0.15;
const COUNT = new Intl.NumberFormat("en");

/** 1234 as 1,234. */
export function count(number) {
  return COUNT.format(number);
}

/** 2, "example" as "2 examples"; 1, "class", "classes" as "1 class". */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A share of 1 in percent; what is nearly nothing or nearly all is not rounded to it. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1\u00a0%";
  if (share < 1 && share > 0.9995) return ">99.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** Bytes for people. */
export function bytes(number) {
  return number < 1e6 ? `${Math.ceil(number / 1e3)} kB` : `${(number / 1e6).toFixed(1)} MB`;
}

/** [class, share] pairs, likeliest first. */
export function likeliest(probabilities) {
  return Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
}

/**
 * How far an answer can be trusted.
 * @param {Object} row the answer.
 * @param {number} coverage of its set, if it has one.
 * @param {number[]} usual quantiles of the novelty of stored examples, evenly spaced from the least to the greatest.
 * @returns {{tone: string, verdict: (Node|string)[], more: string}[]} one entry for each way to look at it;
 *   tone is "good", "doubt" or "bad".
 */
export function trust(row, coverage, usual) {
  const told = [alone(row)];
  told.push(novelty(row.novelty, usual));
  if (row.credibility !== null) told.push(credibility(row.credibility));
  if (row.set) told.push(setOf(row.set, coverage));
  return told.filter((each) => each !== null);
}

function alone(row) {
  if (!row.evidence.length) return null;
  const same = row.without_strongest === row.label;
  const strongest = `example ${row.evidence[0].id}`;
  return {
    tone: same ? "good" : "doubt",
    verdict: same
      ? [`Does not hang on one example: without ${strongest}, the strongest, it would be the same.`]
      : [`Hangs on one example: without ${strongest} it would be `, className(row.without_strongest), "."],
    more:
      "The memory was asked again as if it did not hold the example that weighed most. If one example alone decides, " +
      "look whether its label is right.",
  };
}

function novelty(value, usual) {
  if (!usual.length) return null;
  const rank = usual.filter((each) => each < value).length / usual.length;
  const [middle, high] = [0.5, 1 - RARE].map((share) => usual[Math.floor(share * (usual.length - 1))].toFixed(2));
  const more =
    `Novelty ${value.toFixed(2)} nats: minus the log of how much lies near it in the memory. Half of the stored examples ` +
    `have less than ${middle}, and 95 % less than ${high}. What is far from everything gets an answer too, which means little.`;
  if (rank === 1) {
    return { tone: "bad", verdict: ["New: farther from everything than any stored example is. Its class may be unknown."], more };
  }
  if (rank > 1 - RARE) {
    return { tone: "doubt", verdict: [`Unusual: ${percent(rank)} of the stored examples are closer to the others.`], more };
  }
  return { tone: "good", verdict: ["Familiar: as close to the stored examples as they are to each other."], more };
}

function credibility(value) {
  const more =
    `Credibility ${value.toFixed(3)}: the share of examples held out in training that fit their true class no better ` +
    "than this fits the class answered. Below 0.05 no class fits as a true one does.";
  if (value >= RARE && value < UNUSUAL) {
    return { tone: "doubt", verdict: [`Fits its class less well than most: of 100 known examples ${inHundred(value)} fit theirs so badly.`], more };
  }
  if (value < RARE) {
    return { tone: "bad", verdict: [`Fits no class well: of 100 known examples ${inHundred(value)} fit theirs so badly.`], more };
  }
  return { tone: "good", verdict: [`Fits its class: of 100 known examples ${inHundred(value)} fit theirs no better.`], more };
}

function inHundred(share) {
  return share < 0.01 ? "less than 1" : Math.round(100 * share);
}

function setOf(names, coverage) {
  const share = Math.round(100 * coverage);
  const list = names.flatMap((name, place) => (place ? [", ", className(name)] : [className(name)]));
  const told = {
    0: ["Undecided: no class fits well enough for the "],
    1: ["Decided: only ", ...list, " is in the "],
  };
  return {
    tone: names.length === 1 ? "good" : "doubt",
    verdict: [...(told[names.length] || ["Undecided between ", ...list, ": the "]), `${share}\u00a0% set.`],
    more:
      `Such sets hold the true class for ${share} of 100 objects that are like those of training. If there is one class ` +
      "in it, the answer is sure; if there are several, it is one of them; if there is none, nothing like it was seen.",
  };
}

/** A line of the journal in words. */
export function change(line) {
  const objects = line.ids ? counted(line.ids.length, "example") : "";
  switch (line.what) {
    case "add":
      return [`Taught ${objects}: `, ...namesOf(line.labels)];
    case "relabel":
      return [`Changed the label of ${objects} from `, ...namesOf(line.before), " to ", className(line.label)];
    case "forget":
      return [`Forgot ${objects} for good: `, ...namesOf(line.labels)];
    case "undo":
      return [`Took change ${line.of} back`];
    default:
      return [`${line.what} ${objects}`];
  }
}

function namesOf(labels) {
  const names = [...new Set(labels)];
  const shown = names.slice(0, 5).flatMap((name, place) => (place ? [", ", className(name)] : [className(name)]));
  return names.length > 5 ? [...shown, ` and ${names.length - 5} more`] : shown;
}
