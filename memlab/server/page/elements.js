// Building the page. What the server says becomes text or an attribute, never markup, so that no name can be a tag.

/**
 * A new element.
 * @param {string} name of the tag.
 * @param {Object} properties functions are listeners (`onclick`); true is an attribute without a value; false, null and
 *   undefined are none; all else is the value of an attribute.
 * @param {...(Node|string|null)} children strings become text; null is nothing.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A button that does not submit. */
export function button(words, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, words);
}

/** A class name, that stands out in a sentence. */
export function className(name) {
  return element("b", { class: "class" }, name);
}

/** The element of the page with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Put other children into an element, and the focus back to where it was: to what has the same `data-focus`.
 * @returns {boolean} whether the focus was inside.
 */
export function replaceKeepingFocus(place, ...children) {
  const focused = document.activeElement;
  const inside = place.contains(focused);
  const key = inside ? focused.dataset.focus : undefined;
  place.replaceChildren(...children);
  if (inside) {
    const same = key && [...place.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === key);
    if (same instanceof HTMLInputElement) same.value = focused.value; // somebody is typing
    (same || place.querySelector("h2") || place).focus();
  }
  return inside;
}

/** Open a dialog; resolves with what it was closed with. */
export function opened(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}
