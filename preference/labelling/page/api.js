// Talking to the server: JSON both ways, and one sentence when something is wrong.

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

const LONGEST_SILENCE = 15_000; // milliseconds: a network that goes without a word would hold a request for minutes

async function ask(path, options = {}) {
  const signal = AbortSignal.timeout(LONGEST_SILENCE);
  const response = await fetch(path, { credentials: "same-origin", cache: "no-store", signal, ...options });
  let document = null;
  try {
    document = await response.json();
  } catch {
    // An answer that is no JSON comes from something in between.
  }
  if (!response.ok || document === null) {
    throw new Refused(response.status, document?.error ?? `The server answered with ${response.status}.`);
  }
  return document;
}

export function get(path, query = {}) {
  const words = new URLSearchParams(query).toString();
  return ask(words ? `${path}?${words}` : path);
}

// Which store this page is of; what is said to another one is refused.
export const served = { store: undefined };

export function post(path, document) {
  const body = JSON.stringify({ store: served.store, ...document });
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body });
}

// A random UUID. Over plain HTTP at another address than the machine's own there is no crypto.randomUUID.
export function identifier() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // RFC 9562's variant
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
