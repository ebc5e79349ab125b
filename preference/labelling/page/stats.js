// The page of figures.

import { get } from "./api.js";
import { columns, element, intervals } from "./charts.js";

const byId = (id) => document.getElementById(id);
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));

function table(id, heads, rows) {
  const head = element("tr");
  head.append(...heads.map((text) => element("th", text, { scope: "col" })));
  const lines = rows.map((cells) => {
    const line = element("tr");
    line.append(...cells.map((text) => element("td", String(text))));
    return line;
  });
  const [top, body] = [element("thead"), element("tbody")];
  top.append(head);
  body.append(...lines);
  byId(id).replaceChildren(top, body);
}

function tiles(facts) {
  byId("tiles").replaceChildren(...facts.map(([name, value]) => {
    const tile = element("div");
    tile.append(element("dt", name), element("dd", value));
    return tile;
  }));
}

function nothing(id, text) {
  byId(id).replaceChildren(element("p", text, { class: "fine" }));
}

function show(stats) {
  const { by_choice: choices, overall } = stats;
  tiles([
    ["Answers", stats.total.toLocaleString()],
    ["Median", stats.median_seconds === null ? "–" : `${stats.median_seconds.toFixed(1)} s`],
    ["Left", choices.left.toLocaleString()], ["Right", choices.right.toLocaleString()],
    ["Equally good", choices.tie.toLocaleString()], ["Can’t tell", choices.skip.toLocaleString()],
    ["Agreement", percent(overall.agreement)], ["κ", number(overall.kappa)],
  ]);
  const days = stats.by_day.filter(([, count]) => count > 0);
  if (days.length) byId("days").replaceChildren(columns(days.map(([day]) => day.slice(5)), days.map(([, count]) => count), "Answers a day"));
  else nothing("days", "There are no answers yet.");
  const { edges, counts } = stats.seconds_histogram;
  const names = [`< ${edges[0]}`, ...edges.slice(1).map((edge, i) => `${edges[i]}–${edge}`), `> ${edges.at(-1)}`];
  if (stats.total) byId("seconds").replaceChildren(columns(names, counts, "Answers by the seconds that they took"));
  else nothing("seconds", "There are no answers yet.");
  table("people", ["Name", "Answers", "Today", "Median", "Left", "Equal", "Can’t tell", "Oneself"], stats.people.map((person) => [
    person.annotator, person.answers, person.today, person.median_seconds === null ? "–" : `${person.median_seconds.toFixed(1)} s`,
    percent(person.left_share), percent(person.tie_rate), percent(person.skip_rate),
    person.self_pairs ? `${percent(person.self_agreement)} of ${person.self_pairs}` : "–",
  ]));
  const sided = stats.people.filter((person) => person.left_share !== null);
  const rows = sided.map((person) => ({
    name: person.annotator, value: person.left_share, low: person.left_interval[0], high: person.left_interval[1],
  }));
  if (rows.length) byId("sides").replaceChildren(intervals(rows, "Share of answers for the left side, by person, with intervals"));
  if (stats.agreements.length) {
    table("agreements", ["Who", "Pairs", "Agreement", "κ", "95 %"], stats.agreements.map((row) => [
      `${row.a} and ${row.b}`, row.pairs, percent(row.agreement), number(row.kappa),
      row.interval === null ? "–" : `${number(row.interval[0])} to ${number(row.interval[1])}`,
    ]));
  } else {
    byId("agreements").replaceChildren(element("caption", "No pair has been answered by two people yet.", { class: "fine" }));
  }
}

async function refresh() {
  try {
    show(await get("/api/stats"));
    byId("notice").hidden = true;
  } catch (error) {
    byId("notice").textContent = error.message;
    byId("notice").hidden = false;
  }
  setTimeout(refresh, 5000);
}

refresh();
