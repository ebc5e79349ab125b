// The one clock: both clips are at the same frame at every moment, whatever their lengths.

const HOLD_SECONDS = 0.6; // at the end, before the clips begin again
export const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2];

export class Clock {
  constructor(show) {
    this.show = show; // called with a frame when it changes
    this.frames = 1;
    this.fps = 30;
    this.speed = 1;
    this.playing = false;
    this.position = 0; // in frames
    this.before = null;
    this.shown = -1;
    requestAnimationFrame((now) => this.tick(now));
  }

  get frame() {
    return Math.max(0, Math.min(this.frames - 1, Math.floor(this.position + 1e-6)));
  }

  load(frames, fps, playing) {
    Object.assign(this, { frames, fps, playing, position: 0, before: null, shown: -1 });
    this.refresh();
  }

  tick(now) {
    if (this.playing && this.before !== null) {
      // After a hidden tab or a stall the clips go on where they were, and do not jump.
      const passed = Math.min(0.25, (now - this.before) / 1000);
      this.position += passed * this.fps * this.speed;
      if (this.position >= this.frames + HOLD_SECONDS * this.fps * this.speed) this.position = 0;
      this.refresh();
    }
    this.before = now;
    requestAnimationFrame((later) => this.tick(later));
  }

  refresh() {
    if (this.frame !== this.shown) {
      this.shown = this.frame;
      this.show(this.shown);
    }
  }

  seek(frame) {
    this.position = Math.max(0, Math.min(this.frames - 1, frame));
    this.refresh();
  }

  step(by) {
    this.playing = false;
    this.seek(this.frame + by);
  }

  faster(by) {
    const at = SPEEDS.indexOf(this.speed) + by;
    this.speed = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))];
  }

  restart() {
    this.position = 0;
    this.playing = true;
    this.refresh();
  }
}
