// Small plots as SVG, drawn without a library.

const SPACE = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

export function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

// A line through points [[x, y], …], its last value beside it.
export function sparkline(points, label, width = 110, height = 22) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const x = (value) => (right > left ? ((value - left) / (right - left)) * (width - 4) : width - 4);
  const y = (value) => (high > low ? height - 3 - ((value - low) / (high - low)) * (height - 6) : height / 2);
  const line = points.map((point) => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(" ");
  const [endX, endY] = points.at(-1);
  return svg(
    "svg", { class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("polyline", { points: line }), svg("circle", { cx: x(endX), cy: y(endY), r: 2.2 }),
  );
}

// Columns with their names below and their values above; `names` may be fewer when there is no room.
export function columns(names, values, label) {
  const [width, height, foot, head] = [720, 180, 24, 18];
  const highest = Math.max(1, ...values);
  const each = (width - 8) / Math.max(1, values.length);
  const every = Math.ceil(values.length / 12);
  const bars = svg("g", { class: "bars" });
  const words = [];
  values.forEach((value, i) => {
    const tall = (value / highest) * (height - foot - head);
    const x = 4 + i * each;
    const wide = Math.min(64, each * 0.76);
    const middle = x + each / 2;
    bars.append(svg("rect", { x: middle - wide / 2, y: height - foot - tall, width: wide, height: tall, rx: 2 }));
    if (i % every === 0) words.push(svg("text", { x: middle, y: height - 8, "text-anchor": "middle" }, names[i]));
    if (value && every === 1) {
      words.push(svg("text", { x: middle, y: height - foot - tall - 5, "text-anchor": "middle" }, String(value)));
    }
  });
  const axis = svg("line", { class: "axis", x1: 0, x2: width, y1: height - foot + 0.5, y2: height - foot + 0.5 });
  const about = { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
  return svg("svg", about, axis, bars, ...words);
}

// Shares from 0 to 1 with their intervals, a row each, and a line at the middle.
export function intervals(rows, label) {
  const [width, row, start] = [720, 30, 130];
  const height = rows.length * row + 26;
  const x = (value) => start + value * (width - start - 24);
  const drawn = rows.flatMap(({ name, value, low, high }, i) => {
    const y = i * row + row / 2;
    return [
      svg("text", { x: start - 12, y: y + 4, "text-anchor": "end" }, name.length > 18 ? `${name.slice(0, 17)}…` : name),
      svg("line", { class: "interval", x1: x(low), x2: x(high), y1: y, y2: y }),
      svg("circle", { class: "point", cx: x(value), cy: y, r: 4 }),
    ];
  });
  const marks = [0, 0.25, 0.5, 0.75, 1].map((value) =>
    svg("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, `${100 * value} %`),
  );
  const middle = svg("line", { class: "middle", x1: x(0.5), x2: x(0.5), y1: 0, y2: height - 22 });
  const about = { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
  return svg("svg", about, middle, ...drawn, ...marks);
}
