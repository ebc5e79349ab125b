// One's own answers, the newest first, to look at and to revise.

import { get, identifier, post, served } from "./api.js";
import { element } from "./charts.js";
import { loadClip } from "./clips.js";
import { known } from "./person.js";

const byId = (id) => document.getElementById(id);
const CHOICES = [["left", "◀ Left"], ["right", "Right ▶"], ["tie", "= Equal"], ["skip", "? Can’t tell"]];
const person = known();
let before = null;

// A canvas that plays while it is looked at.
function player(side, name) {
  const canvas = element("canvas", "", { role: "img", "aria-label": `The clip on the ${name}`, tabindex: 0 });
  let frames = null;
  let playing = false;
  const play = (began) => {
    const step = (now) => {
      if (!playing || !canvas.isConnected) return;
      frames.draw(canvas, Math.floor(((now - began) / 1000) * frames.fps) % frames.count);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  };
  const start = () => {
    if (playing || frames === null) return;
    playing = true;
    play(performance.now());
  };
  const stop = () => (playing = false);
  canvas.onpointerenter = canvas.onfocus = start;
  canvas.onpointerleave = canvas.onblur = stop;
  // Only what comes into sight is loaded.
  const sight = new IntersectionObserver(async ([entry]) => {
    if (!entry.isIntersecting) return;
    sight.disconnect();
    try {
      frames = await loadClip(side);
      frames.draw(canvas, Math.floor(frames.count / 2));
    } catch (error) {
      canvas.replaceWith(element("p", "This clip cannot be shown any more.", { class: "fine" }));
    }
  });
  sight.observe(canvas);
  return canvas;
}

function revision(answer) {
  const group = element("div", "", { class: "revise", role: "group", "aria-label": "Your answer" });
  const buttons = CHOICES.map(([choice, text]) => {
    const button = element("button", text, { type: "button", "aria-pressed": choice === answer.choice });
    button.onclick = () => revise(choice);
    return [choice, button];
  });
  const mark = () => buttons.forEach(([choice, button]) => button.setAttribute("aria-pressed", String(choice === answer.choice)));
  async function revise(choice) {
    if (choice === answer.choice) return;
    const id = identifier();
    const changed = { id, pair: answer.pair.pair, choice, seconds: answer.seconds, supersedes: answer.id };
    buttons.forEach(([, button]) => (button.disabled = true));
    try {
      const { results } = await post("/api/answers", { annotator: person, answers: [changed] });
      if (results[0].status === "refused") throw new Error(results[0].error);
      Object.assign(answer, { id, choice });
      mark();
      byId("announce").textContent = "Changed.";
      byId("notice").hidden = true;
    } catch (error) {
      byId("notice").textContent = `Not changed: ${error.message}`;
      byId("notice").hidden = false;
    }
    buttons.forEach(([, button]) => (button.disabled = false));
  }
  group.append(...buttons.map(([, button]) => button));
  return group;
}

function entry(answer) {
  const item = element("li");
  const { pair } = answer;
  if (pair.prompt !== undefined) item.append(element("div", pair.prompt, { class: "text whole", tabindex: 0 }));
  for (const side of ["left", "right"]) {
    item.append("text" in pair[side] ? element("div", pair[side].text, { class: "text", tabindex: 0 }) : player(pair[side], side));
  }
  const about = element("div", "", { class: "about" });
  const when = new Date(1000 * answer.created);
  const time = element("time", when.toLocaleString(), { datetime: when.toISOString(), class: "fine" });
  const took = answer.seconds === null ? "" : ` · ${answer.seconds.toFixed(1)} s`;
  time.append(took + (answer.late ? " · late" : ""));
  about.append(revision(answer), time);
  if (pair.prompt === undefined) {
    const save = element("span", "Save as video: ", { class: "fine" });
    for (const side of ["left", "right"]) {
      save.append(element("a", side, { href: pair[side].video, download: `clip-${pair[side].clip}.mp4` }), " ");
    }
    about.append(save);
  }
  item.append(about);
  return item;
}

async function more() {
  byId("older").disabled = true;
  try {
    served.store ??= (await get("/api/task")).store;
    const query = before === null ? { annotator: person } : { annotator: person, before };
    const page = await get("/api/history", query);
    before = page.before;
    byId("answers").append(...page.answers.map(entry));
    byId("older").hidden = before === null;
    if (!byId("answers").children.length) byId("whose").textContent = `${person} has not answered anything yet.`;
  } catch (error) {
    byId("notice").textContent = error.message;
    byId("notice").hidden = false;
  }
  byId("older").disabled = false;
}

if (person) {
  byId("whose").textContent = `Those of ${person}, the newest first. What you change counts from now on; the earlier answer stays on record.`;
  byId("older").onclick = more;
  more();
} else {
  byId("whose").textContent = "Nobody has answered in this browser yet.";
}
