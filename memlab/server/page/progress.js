// What goes on and what went wrong, told in the place where it was asked for.

import { element } from "./elements.js";
import { GoneError } from "./server.js";

const underway = new WeakMap(); // place -> what was begun there last, which alone may write to it
const PATIENCE = 250; // ms before it is said that something takes time

/**
 * Do something that takes time.
 * @param {HTMLElement} place where that is told, and an error if there is one.
 * @param {string} words what is being done.
 * @param {function(function(string))} work is given a function that tells other words.
 * @returns {Promise<boolean>} whether it was done.
 */
export async function during(place, words, work) {
  const line = element("p", { class: "waiting", role: "status" }, element("progress", { "aria-label": words }), element("span", {}, words));
  underway.set(place, line);
  const put = (...children) => underway.get(place) === line && place.replaceChildren(...children);
  const timer = setTimeout(() => put(line), PATIENCE);
  place.setAttribute("aria-busy", "true");
  try {
    await work((other) => line.lastChild.replaceChildren(other));
    put();
    return true;
  } catch (error) {
    put(errorLine(error));
    return false;
  } finally {
    clearTimeout(timer);
    if (underway.get(place) === line) place.removeAttribute("aria-busy");
  }
}

/** An error, in the words it came with. A fault of this page is told, and thrown on to the console. */
export function errorLine(error) {
  if (!("status" in error) && !(error instanceof GoneError)) setTimeout(() => { throw error; });
  return element("p", { class: "error", role: "alert" }, error.message);
}
