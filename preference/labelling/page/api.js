// Talking to the server: JSON both ways, and one sentence when something is wrong.

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
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

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
