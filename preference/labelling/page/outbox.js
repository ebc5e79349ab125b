// Answers on their way: kept by the browser before they are sent, sent in order, and again after any failure.

import { pause, post, Refused, served } from "./api.js";

const KEY = "rllab.outbox";
const LONGEST_WAIT = 20; // seconds

export class Outbox {
  // `changed` hears of every change, `refused` of an answer that the server does not take.
  constructor(changed, refused) {
    this.changed = changed;
    this.refused = refused;
    this.wait = 0;
    this.sending = null;
    this.inFlight = new Set();
    window.addEventListener("online", () => this.hurry());
  }

  read() {
    try {
      return JSON.parse(localStorage.getItem(KEY) ?? "[]");
    } catch {
      return [];
    }
  }

  write(answers) {
    localStorage.setItem(KEY, JSON.stringify(answers));
    this.changed();
  }

  // Those of the store that is served; others wait until theirs is served again.
  mine() {
    return this.read().filter((answer) => answer.store === served.store);
  }

  get waiting() {
    return this.mine().length;
  }

  add(answer) {
    this.write([...this.read(), { ...answer, store: served.store }]);
    this.send();
  }

  // Take back an answer that is not on its way yet; whether that was possible.
  takeBack(id) {
    if (this.inFlight.has(id)) return false;
    const answers = this.read();
    const rest = answers.filter((answer) => answer.id !== id);
    if (rest.length === answers.length) return false;
    this.write(rest);
    return true;
  }

  hurry() {
    this.wake?.();
    this.send();
  }

  // Resolves when nothing is on its way any more, sent or not.
  async settled() {
    while (this.inFlight.size) await pause(0.02);
  }

  send() {
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async sendAll() {
    for (let answers = this.mine(), most = 50; answers.length; answers = this.mine()) {
      const { annotator } = answers[0];
      const batch = answers.filter((answer) => answer.annotator === annotator).slice(0, most);
      this.inFlight = new Set(batch.map((answer) => answer.id));
      try {
        const bare = batch.map(({ annotator: _, store: __, ...answer }) => answer);
        const { results } = await post("/api/answers", { annotator, answers: bare });
        const done = new Set(results.map((result) => result.id));
        this.write(this.read().filter((answer) => !done.has(answer.id)));
        this.wait = 0;
        results.filter((result) => result.status === "refused").forEach((result) => this.refused(result.error));
      } catch (error) {
        if (error instanceof Refused && error.status === 400) {
          // Sent again it will not be taken either: find the one by sending each alone, and keep the others going.
          if (batch.length === 1) {
            this.write(this.read().filter((answer) => answer.id !== batch[0].id));
            this.refused(error.message);
          }
          most = 1;
          continue;
        }
        this.inFlight.clear();
        this.wait = Math.min(LONGEST_WAIT, Math.max(0.5, 2 * this.wait));
        this.changed();
        await Promise.race([pause(this.wait), new Promise((resolve) => (this.wake = resolve))]);
      } finally {
        this.inFlight.clear();
      }
    }
  }
}
