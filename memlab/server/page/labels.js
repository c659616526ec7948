// Choosing a class: the likeliest by one click, any other and a new one by its name.

import { button, element } from "./elements.js";
import { classes, info } from "./memory.js";

const ALL = 12; // classes at most that all get a button
const FIRST = 5; // of more, the likeliest that do

/**
 * A group of buttons with a field beside them.
 * @param {string} legend what is asked.
 * @param {string[]} likeliest classes, the likeliest first.
 * @param {string} verb what is done with a class: the words of the button beside the field.
 * @param {string|null} current the class it has, which is not offered.
 * @param {function(string): Promise<boolean>} take is given the class chosen; whether it was taken.
 * @param {string} key by which the focus is found again; see `replaceKeepingFocus`.
 */
export function labelChoice({ legend, likeliest = [], verb, current = null, take, key = "" }) {
  const names = [...new Set([...likeliest, ...(classes().length <= ALL ? classes() : [])])];
  const offered = names.filter((name) => name !== current).slice(0, classes().length <= ALL ? ALL : FIRST);
  const field = element("input", {
    list: "class-names",
    "aria-label": "Another class, or a new one",
    placeholder: "another class",
    required: true,
    maxlength: info.max_label,
    autocomplete: "off",
    "data-focus": `${key} field`,
  });
  let taken = false; // what is shown is old then, and a second click is none
  const choose = async (label) => {
    if (taken) return;
    taken = true;
    taken = await take(label);
    if (taken) field.value = "";
  };
  const submitted = (event) => {
    event.preventDefault();
    if (field.value.trim()) choose(field.value.trim());
  };
  return element(
    "fieldset",
    { class: "labels" },
    element("legend", {}, legend),
    ...offered.map((name) => button(name, () => choose(name), { class: "chip", "data-focus": `${key} ${name}` })),
    element("form", { onsubmit: submitted }, field, element("button", {}, verb)),
  );
}
