// The pairs at hand: asked for ahead, and loaded and decoded before they are needed.

import { post } from "./api.js";
import { ClipGone, loadClip } from "./clips.js";

export const AHEAD = 3;
const KEPT = 4; // pairs whose frames stay decoded after their answer, for an undo

export class Supply {
  // `arrived` is called when a pair is there while none is on the screen.
  constructor(person, kind, arrived) {
    this.person = person;
    this.kind = kind;
    this.arrived = arrived;
    this.ready = []; // loaded pairs, the next first
    this.loaded = new Map(); // by pair
    this.loading = new Map(); // promises, by pair
    this.current = null;
    this.empty = null;
    this.skipped = new Set(); // answered, or gone
    this.filling = null;
    this.turn = 0; // counts the times that all were given back
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
    // A video's frame that comes late is not to be drawn over the next pair.
    this.loaded.get(pair.pair)?.clips.forEach((clip) => clip.rest());
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
    const [annotator, turn] = [this.person(), this.turn];
    const { pairs, empty } = await post("/api/next", { annotator, want, have });
    // Meanwhile somebody else may sit here, or a pause have begun: then these are not theirs.
    if (turn !== this.turn) return this.giveBack(annotator, pairs);
    this.empty = empty;
    const fresh = pairs.filter((pair) => !answered.includes(pair.pair) && !this.held().includes(pair.pair));
    // Where somebody waits, the first clips have the connection and the processor to themselves.
    const groups = have.length ? [fresh] : [fresh.slice(0, 1), fresh.slice(1)];
    for (const group of groups) {
      await Promise.all(group.map((pair) => this.load(pair)));
      if (turn !== this.turn) return this.giveBack(annotator, pairs);
      for (const pair of group) {
        if (this.loaded.has(pair.pair) && !this.held().includes(pair.pair)) this.ready.push(pair);
      }
      if (this.current === null && this.ready.length) this.arrived();
    }
  }

  load(pair) {
    if (!this.loading.has(pair.pair)) {
      this.loading.set(pair.pair, this.loadNow(pair).finally(() => this.loading.delete(pair.pair)));
    }
    return this.loading.get(pair.pair);
  }

  async loadNow(pair) {
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

  // Give all back. What is loaded goes too: the next person may see a pair's sides the other way round.
  async release() {
    const pairs = [this.current, ...this.ready].filter((pair) => pair !== null);
    this.turn += 1;
    this.current = null;
    this.ready = [];
    [...this.loaded.keys()].forEach((number) => this.forget(number));
    await this.giveBack(this.person(), pairs);
  }

  async giveBack(annotator, pairs) {
    const numbers = pairs.map((pair) => pair.pair);
    numbers.forEach((number) => this.forget(number));
    if (numbers.length) await post("/api/release", { annotator, pairs: numbers });
  }
}
