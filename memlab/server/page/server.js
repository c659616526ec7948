// Requests to the server that this page is from.

import { enterToken, token } from "./token.js";

const AGAIN = 2000; // ms until a server that is gone is tried once more

/** What the server refused, in its own words. */
export class RefusedError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** There is no answer: the server was stopped, or the network is down. */
export class GoneError extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

let gone = false;

/**
 * Ask the server.
 * @param {string} method as GET.
 * @param {string} path relative to this page, so that the server may be below a prefix.
 * @param {FormData|Object|undefined} body FormData is sent as it is, all else as JSON.
 * @returns {Promise<Object>} its answer.
 * @throws {RefusedError|GoneError}
 */
export async function request(method, path, body) {
  const sent = await send(method, path, body);
  if (sent.status !== 401 || !(await enterToken())) return answered(sent);
  return answered(await send(method, path, body));
}

/** The path of a GET with its parameters; those that are null or "" are left out. */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value != null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function send(method, path, body) {
  const headers = {};
  if (token() && method !== "GET") headers.Authorization = `Bearer ${token()}`;
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, body: body === undefined || form ? body : JSON.stringify(body) });
  } catch {
    lost();
    throw new GoneError();
  }
}

async function answered(reply) {
  let said;
  try {
    said = await reply.json();
  } catch {
    throw new RefusedError(`The server answered ${reply.status} ${reply.statusText} and nothing that can be read.`, reply.status);
  }
  if (!reply.ok) throw new RefusedError(said.error || `The server answered ${reply.status}.`, reply.status);
  return said;
}

function lost() {
  if (gone) return;
  gone = true;
  document.dispatchEvent(new CustomEvent("server", { detail: { gone } }));
  const timer = setInterval(async () => {
    try {
      await fetch("health", { cache: "no-store" });
    } catch {
      return;
    }
    clearInterval(timer);
    gone = false;
    document.dispatchEvent(new CustomEvent("server", { detail: { gone } }));
  }, AGAIN);
}
