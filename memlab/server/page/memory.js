// The memory that is shown, as the server last told of it, and who wants to know when it changes.

import { byId, element } from "./elements.js";
import { request } from "./server.js";

const listeners = [];

/** What `GET /info` said. */
export let info = null;

let tell;

/** Over when the memory is known for the first time. */
export const known = new Promise((resolve) => (tell = resolve));

/** Call a function after each change, with the ids of the objects that were changed. */
export function onChange(listener) {
  listeners.push(listener);
}

/** Ask anew what the memory is; of a change, ids of the objects that it was made to. */
export async function refresh(ids = []) {
  info = await request("GET", "info");
  tell();
  byId("class-names").replaceChildren(...classes().map((value) => element("option", { value })));
  for (const listener of listeners) listener(ids);
}

/** Names of all classes, in order; numbers by size. */
export function classes() {
  return Object.keys(info.classes).sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
}

/** Where the picture of a stored object is; null if none is kept. */
export function pictureOf(id) {
  return info.picture && info.keeps !== "none" ? `examples/${id}/picture` : null;
}
