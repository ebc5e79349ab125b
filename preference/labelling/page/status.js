// The footer: how many answers there are, how quickly they come, and what the agent does with them.

import { sparkline } from "./charts.js";

const byId = (id) => document.getElementById(id);
const rounded = (value, digits = 0) => value.toLocaleString(undefined, { maximumFractionDigits: digits });

export class Footer {
  // `heard` is called with every status, `lost` with whether the server is out of reach.
  constructor(person, heard, lost) {
    this.person = person;
    this.heard = heard;
    this.lost = lost;
    this.source = null;
    this.listen();
  }

  listen() {
    this.source?.close();
    this.source = new EventSource(`/api/events?annotator=${encodeURIComponent(this.person())}`);
    this.source.addEventListener("status", (event) => {
      this.lost(false);
      this.show(JSON.parse(event.data));
    });
    this.source.onerror = () => {
      this.lost(true);
      // A browser gives up for good when it was answered with an error; a server that starts again is to be found.
      if (this.source.readyState === EventSource.CLOSED) setTimeout(() => this.listen(), 1000);
    };
  }

  show(status) {
    const { trainer } = status;
    byId("done").textContent = rounded(status.done) + (status.target ? ` of ${rounded(status.target)}` : "");
    byId("today").textContent = rounded(status.today) + (status.goal ? ` of ${rounded(status.goal)}` : "");
    byId("rate").textContent = status.rate_today === null ? "–" : `${rounded(status.rate_today)} an hour`;
    byId("median").textContent = status.median_seconds === null ? "–" : `${rounded(status.median_seconds, 1)} s`;
    byId("queue").textContent = rounded(status.queue);
    byId("goal").hidden = !status.goal;
    byId("goal-bar").max = status.goal || 1;
    byId("goal-bar").value = Math.min(status.goal, status.today);
    byId("trainer").textContent = trainer === null ? "no training has been heard of" : told(trainer);
    curve("accuracy", trainer?.accuracy, (value) => `${rounded(100 * value)} %`, "answers");
    curve("progress", trainer?.progress, (value) => rounded(value, 1), "steps");
    this.heard(status);
  }
}

function told(trainer) {
  const part = trainer.steps ? `, ${rounded(trainer.step)} of ${rounded(trainer.steps)} steps` : "";
  return trainer.sentence.replace(/\.$/, "") + part;
}

function curve(name, points, format, unit) {
  const part = byId(`${name}-part`);
  part.hidden = !points?.length;
  if (part.hidden) return;
  const last = points.at(-1)[1];
  const label = `${format(last)} after ${rounded(points.at(-1)[0])} ${unit}`;
  const words = document.createElement("span");
  words.textContent = format(last);
  byId(name).replaceChildren(sparkline(points, label), words);
}
