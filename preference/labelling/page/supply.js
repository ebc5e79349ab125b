// The pairs at hand: asked for ahead, and loaded and decoded before they are needed.

import { post } from "./api.js";
import { ClipGone, loadClip } from "./clips.js";

export const AHEAD = 3;
const KEPT = 4; // pairs whose frames stay decoded after their answer, for an undo

export class Supply {
  constructor(person, kind) {
    this.person = person;
    this.kind = kind;
    this.ready = []; // loaded pairs, the next first
    this.loaded = new Map(); // by pair
    this.current = null;
    this.empty = null;
    this.skipped = new Set(); // answered, or gone
    this.filling = null;
  }

  take() {
    this.current = this.ready.shift() ?? null;
    return this.current;
  }

  // Put a pair first, as when its answer is taken back.
  putBack(pair) {
    if (this.current !== null) this.ready.unshift(this.current);
    this.current = null;
    this.skipped.delete(pair.pair);
    this.ready.unshift(pair);
  }

  done(pair) {
    this.skipped.add(pair.pair);
    const old = [...this.loaded.keys()].filter((number) => this.skipped.has(number));
    old.slice(0, Math.max(0, old.length - KEPT)).forEach((number) => this.forget(number));
  }

  forget(number) {
    this.loaded.get(number)?.clips.forEach((clip) => clip.close());
    this.loaded.delete(number);
  }

  held() {
    return [this.current, ...this.ready].filter((pair) => pair !== null).map((pair) => pair.pair);
  }

  // Have pairs ahead. Resolves when what was asked for is loaded.
  fill() {
    this.filling ??= this.fetchMore().finally(() => {
      this.filling = null;
    });
    return this.filling;
  }

  async fetchMore() {
    const have = this.held();
    const want = AHEAD + 1;
    if (have.length >= want) return;
    const answered = [...this.skipped];
    const { pairs, empty } = await post("/api/next", { annotator: this.person(), want, have });
    this.empty = empty;
    const fresh = pairs.filter((pair) => !answered.includes(pair.pair) && !this.held().includes(pair.pair));
    // All at once: the first is not to wait for those behind it.
    await Promise.all(fresh.map((pair) => this.load(pair)));
    for (const pair of fresh) if (this.loaded.has(pair.pair) && !this.held().includes(pair.pair)) this.ready.push(pair);
  }

  async load(pair) {
    if (this.loaded.has(pair.pair)) return;
    try {
      const clips = this.kind === "texts" ? [] : await Promise.all([loadClip(pair.left), loadClip(pair.right)]);
      this.loaded.set(pair.pair, { clips });
    } catch (error) {
      if (!(error instanceof ClipGone)) throw error;
      const report = { annotator: this.person(), pair: pair.pair, clip: error.clip, problem: error.message };
      await post("/api/missing", report);
      this.skipped.add(pair.pair);
    }
  }

  async release() {
    const pairs = this.held();
    this.current = null;
    this.ready = [];
    if (pairs.length) await post("/api/release", { annotator: this.person(), pairs });
  }
}
