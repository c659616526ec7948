// The token that the server asks for before it changes anything; this tab forgets it when it is closed.

import { byId, opened } from "./elements.js";

const KEPT = "memlab token";

/** The token that was entered; "" if none was. */
export function token() {
  return sessionStorage.getItem(KEPT) || "";
}

/** Have a token entered; whether one was. */
export async function enterToken() {
  const field = byId("token-field");
  field.value = "";
  const given = (await opened(byId("token"))) === "yes" && field.value.trim();
  if (given) sessionStorage.setItem(KEPT, given);
  field.value = "";
  return Boolean(given);
}
