// The page on which people compare: one pair at a time, the next ones ready.

import { get, identifier, post, served } from "./api.js";
import { Clock } from "./clock.js";
import { listen } from "./keys.js";
import { Outbox } from "./outbox.js";
import { askName, known } from "./person.js";
import { Footer } from "./status.js";
import { Supply } from "./supply.js";

const GUARD_MS = 250; // after a new pair: a key meant for the last one is not to answer this one
const DEEPEST_UNDO = 100;
const WORDS = { left: "Left is better", right: "Right is better", tie: "Equally good", skip: "Can’t tell" };
const byId = (id) => document.getElementById(id);
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

let person = known();
let kind = "clips";
let shownAt = 0; // when the pair was shown
let away = 0; // milliseconds of them in which the page was hidden
let hiddenAt = null;
let paused = false;
let retry = null;
let lost = false;
let problems = [];
let refusal = "";
const answered = []; // {answer, pair}, the newest last

const supply = new Supply(() => person, kind, () => {
  if (!paused) show();
});
const clock = new Clock(draw);
const outbox = new Outbox(notice, (sentence) => {
  refusal = sentence;
  notice();
});

function draw(frame) {
  const pair = supply.current;
  const clips = pair && supply.loaded.get(pair.pair)?.clips;
  if (!clips?.length) return;
  clips.forEach((clip, i) => {
    const there = clip.draw(byId(i ? "right-canvas" : "left-canvas"), frame);
    byId(i ? "right-side" : "left-side").classList.toggle("ended", !there);
  });
  byId("scrubber").value = frame;
  byId("frame").textContent = `${frame + 1} / ${clock.frames}`;
}

function transport() {
  byId("play").textContent = clock.playing ? "❚❚" : "▶";
  byId("play").setAttribute("aria-label", clock.playing ? "Pause the clips" : "Play the clips");
  byId("speed").textContent = `${clock.speed}×`;
}

// Show the next pair that is ready, or say why there is none.
function show() {
  const pair = supply.take();
  const there = pair !== null;
  byId("sides").hidden = !there;
  byId("transport").hidden = !there || kind === "texts";
  byId("prompt-part").hidden = !there || kind !== "texts" || !pair.prompt;
  byId("empty").hidden = there;
  for (const choice of Object.keys(WORDS)) byId(`choose-${choice}`).disabled = !there;
  if (!there) {
    sayEmpty();
    return;
  }
  clearTimeout(retry);
  if (kind === "texts") {
    byId("prompt").textContent = pair.prompt;
    for (const side of ["left", "right"]) {
      byId(`${side}-text`).textContent = pair[side].text;
      byId(`${side}-text`).scrollTop = 0;
    }
    byId("prompt").scrollTop = 0;
  } else {
    const { clips } = supply.loaded.get(pair.pair);
    const frames = Math.max(...clips.map((clip) => clip.count));
    byId("scrubber").max = frames - 1;
    // Drawn within this very call: nothing is waited for.
    clock.load(frames, clips[0].fps, !still.matches);
    transport();
  }
  shownAt = performance.now();
  away = 0;
  performance.mark("pair-shown");
  document.body.dataset.pair = pair.pair;
}

function sayEmpty() {
  delete document.body.dataset.pair;
  const { reason, expected, retry: seconds } = supply.empty ?? { reason: "Fetching pairs …", expected: null, retry: 1 };
  byId("empty-reason").textContent = paused ? "You have paused." : lost ? "The server cannot be reached." : reason;
  const left = expected === null || expected === undefined ? null : Math.max(0, Math.round(expected - Date.now() / 1000));
  byId("empty-expected").textContent = paused || lost || left === null ? ""
    : left > 0 ? `The next pair is expected in about ${duration(left)}.` : "The next pair is expected at any moment.";
  clearTimeout(retry);
  if (!paused) retry = setTimeout(fill, 1000 * Math.min(1, seconds));
}

function duration(seconds) {
  if (seconds < 90) return `${seconds} seconds`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} minutes` : `${Math.round(seconds / 3600)} hours`;
}

async function fill() {
  if (paused) return;
  try {
    await supply.fill();
    lost = false;
  } catch (error) {
    lost = !(error.status >= 400 && error.status < 500);
    if (!lost) refusal = error.message;
  }
  notice();
  if (supply.current === null && !paused) show();
}

function choose(choice) {
  const pair = supply.current;
  if (pair === null || performance.now() - shownAt < GUARD_MS) return;
  performance.mark("answered");
  const seconds = Math.max(0, (performance.now() - shownAt - away) / 1000);
  const answer = { id: identifier(), pair: pair.pair, choice, seconds: Math.round(1000 * seconds) / 1000, annotator: person };
  answered.push({ answer, pair });
  answered.splice(0, answered.length - DEEPEST_UNDO);
  refusal = "";
  outbox.add(answer);
  supply.done(pair);
  show();
  performance.measure("answer-to-drawn", "answered");
  byId("announce").textContent = `${WORDS[choice]}. ${supply.current ? "Next pair." : ""}`;
  fill();
}

let undoing = false;
let undoId = null; // of an undo whose answer was lost: asked again under the same id it takes back nothing more
async function undo() {
  if (undoing) return;
  undoing = true;
  performance.mark("undo");
  try {
    const last = answered.at(-1);
    await outbox.settled();
    let pair;
    if (last && outbox.takeBack(last.answer.id)) {
      pair = last.pair;
    } else {
      if (outbox.waiting) await outbox.send();
      undoId ??= identifier();
      const result = await post("/api/undo", { annotator: person, id: undoId });
      undoId = null;
      pair = result.pair;
      if (result.undone === null) byId("announce").textContent = "There is nothing to take back.";
      else if (pair === null) refusal = "Taken back; that pair is not asked about any more.";
    }
    // Another answer may have been given meanwhile.
    if (answered.includes(last)) answered.splice(answered.indexOf(last), 1);
    if (pair) {
      await supply.load(pair);
      supply.putBack(pair);
      show();
      byId("announce").textContent = "Taken back: answer once more.";
      // Whoever takes back several finds the one before decoded too.
      const before = answered.at(-1);
      if (before) supply.load(before.pair).catch(() => {});
    }
    performance.measure("undone", "undo");
  } catch (error) {
    if (error.status >= 400 && error.status < 500) undoId = null;
    refusal = `Not taken back: ${error.message}`;
  } finally {
    undoing = false;
    notice();
  }
}

// One line above the clips, for what people should know.
function notice() {
  const waiting = outbox.waiting;
  const lines = [];
  if (waiting > 1 || (waiting && (lost || outbox.wait))) {
    lines.push(`${waiting} ${waiting === 1 ? "answer waits" : "answers wait"} to be sent; nothing is lost.`);
  } else if (lost) lines.push("The server cannot be reached; trying again.");
  if (refusal) lines.push(refusal);
  lines.push(...problems);
  byId("notice").textContent = lines.join(" ");
  byId("notice").hidden = !lines.length;
}

async function rest() {
  paused = !paused;
  byId("pause").textContent = paused ? "Resume" : "Pause";
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) {
    const released = supply.release().catch(() => {});
    supply.empty = null;
    show();
    await released;
  } else {
    supply.empty = null;
    sayEmpty();
    await fill();
  }
}

async function rename() {
  const name = await askName(person);
  if (!name || name === person) return;
  await supply.release().catch(() => {});
  person = name;
  answered.length = 0;
  undoId = null;
  supply.skipped.clear();
  byId("person").textContent = person;
  footer.listen();
  show();
  fill();
}

const ACTIONS = {
  left: () => choose("left"), right: () => choose("right"), tie: () => choose("tie"), skip: () => choose("skip"), undo,
  play: () => {
    clock.playing = !clock.playing;
  },
  back: () => clock.step(-1), forward: () => clock.step(1), slower: () => clock.faster(-1), faster: () => clock.faster(1),
  restart: () => clock.restart(), help: () => byId("help-dialog").showModal(),
};

function act(name) {
  if (paused && name !== "help") return;
  ACTIONS[name]();
  transport();
}

for (const [button, name] of [
  ...Object.keys(WORDS).map((choice) => [`choose-${choice}`, choice]),
  ...["undo", "play", "back", "forward", "slower", "faster", "restart", "help"].map((name) => [name, name]),
]) {
  byId(button).onclick = (event) => {
    // Clicked by the mouse it would keep Space to itself, which then answers where a pause was meant.
    if (event.detail) byId(button).blur();
    act(name);
  };
}
byId("scrubber").oninput = () => {
  clock.playing = false;
  clock.seek(Number(byId("scrubber").value));
  transport();
};
// Reached by the mouse it would keep the arrows to itself.
byId("scrubber").onpointerup = () => byId("scrubber").blur();
byId("help-close").onclick = () => byId("help-dialog").close();
byId("pause").onclick = rest;
byId("person").onclick = rename;
window.addEventListener("resize", () => draw(clock.frame));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  else if (hiddenAt !== null) away += performance.now() - Math.max(hiddenAt, shownAt);
});
listen(act);

let footer;
async function begin() {
  let task;
  while (!task) {
    try {
      task = await get("/api/task");
    } catch (error) {
      refusal = error.message;
      notice();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  refusal = "";
  served.store = task.store;
  kind = supply.kind = task.kind;
  byId("question").innerHTML = task.question_html; // rendered by the server from Markdown, raw HTML left out
  document.querySelectorAll(".for-clips").forEach((row) => (row.hidden = kind === "texts"));
  document.querySelectorAll(".for-texts").forEach((row) => (row.hidden = kind !== "texts"));
  for (const side of ["left", "right"]) {
    byId(`${side}-canvas`).hidden = kind === "texts";
    byId(`${side}-text`).hidden = kind !== "texts";
  }
  if (!person) person = await askName("");
  byId("person").textContent = person;
  footer = new Footer(() => person, (status) => {
    problems = status.problems;
    if (supply.current === null && !paused && status.queue > 0) fill();
    notice();
  }, (isLost) => {
    lost = isLost;
    notice();
  });
  sayEmpty();
  // What was answered before a reload and has not arrived yet may still be offered.
  for (const answer of outbox.mine()) if (answer.annotator === person) supply.skipped.add(answer.pair);
  outbox.send();
  await fill();
}

begin();
