// What was measured in the last minutes, as it comes.

import { h, s, say } from "./dom.js";
import { seconds } from "./format.js";

const WINDOW = 300;
const [HEIGHT, LEFT, BOTTOM] = [96, 42, 14];
/** As wide as the pictures are shown, so that nothing is stretched. */
let width = 320;

const CHARTS = [
  { what: "pause", title: "Pauses of guests" },
  { what: "claim", title: "Claims per second", bars: true },
  { what: "wait", title: "Waits for a machine" },
  { what: "first_byte", title: "First byte" },
  { what: "reset", title: "Resets" },
];

export class Graphs {
  constructor(root) {
    this.root = root;
    this.charts = new Map();
  }

  render(state) {
    const now = Date.now();
    // Time goes by slowly here; drawing all of it takes longer than that.
    const last = state.measured.at(-1);
    if (last === this.last && now - this.drawn < 1000 && this.width === innerWidth) return;
    Object.assign(this, { last, drawn: now, width: innerWidth });
    for (const chart of CHARTS) {
      const points = state.measured
        .filter((one) => one.what === chart.what)
        .map((one) => ({ age: (now - one.at) / 1000, value: one.seconds }))
        .filter((one) => one.age < WINDOW);
      const pools = state.pools.length > 0;
      if (chart.what !== "pause" && !pools) continue;
      let figure = this.charts.get(chart.what);
      if (!figure) {
        figure = make(chart);
        this.charts.set(chart.what, figure);
        this.root.append(figure);
      }
      const [caption, , picture] = figure.children;
      say(caption.nextElementSibling, chart.bars ? rateOf(points) : summary(points));
      width = Math.max(200, Math.round(picture.clientWidth) || width);
      picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      picture.setAttribute("aria-label", `${chart.title}: ${caption.nextElementSibling.textContent}`);
      picture.replaceChildren(...(chart.bars ? bars(points) : dots(points)));
    }
  }
}

function make(chart) {
  const picture = s("svg", { role: "img" });
  return h("figure", {}, h("figcaption", {}, chart.title), h("p", { class: "quiet" }), picture);
}

function summary(points) {
  if (!points.length) return "none";
  const values = points.map((one) => one.value).sort((a, b) => a - b);
  const middle = values[Math.floor(values.length / 2)];
  return `${values.length}, median ${seconds(middle)}, longest ${seconds(values.at(-1))}`;
}

function rateOf(points) {
  const minute = points.filter((one) => one.age < 60).length;
  return `${points.length}, ${(minute / 60).toFixed(2)}/s in the last minute`;
}

const x = (age) => width - 2 - ((width - LEFT - 4) * age) / WINDOW;

function line(y, text) {
  const label = s("text", { x: LEFT - 5, y: y + 3, class: "tick" });
  label.append(text);
  return [s("line", { x1: LEFT, x2: width, y1: y, y2: y, class: "rule" }), label];
}

function times() {
  return [300, 240, 180, 120, 60].map((age) => {
    const text = s("text", { x: x(age), y: HEIGHT - 2, class: "time" });
    text.append(`−${age / 60} min`);
    return text;
  });
}

/** One dot for each, on a logarithmic scale from 100 µs. */
function dots(points) {
  const most = Math.max(0.1, ...points.map((one) => one.value));
  const top = Math.ceil(Math.log10(most));
  const y = (value) => {
    const part = (Math.log10(Math.max(value, 1e-4)) + 4) / (top + 4);
    return 5 + (HEIGHT - BOTTOM - 8) * (1 - part);
  };
  const rules = [];
  for (let power = -4; power <= top; power += top > 1 ? 2 : 1) rules.push(...line(y(10 ** power), seconds(10 ** power).replace(/\.0+ /, " ")));
  return [...rules, ...times(), ...points.map((one) => s("circle", { cx: x(one.age), cy: y(one.value), r: 2.2, class: "mark" }))];
}

/** How many in each five seconds. */
function bars(points) {
  const step = 5;
  const counts = new Array(WINDOW / step).fill(0);
  for (const one of points) counts[Math.max(0, Math.floor(one.age / step))] += 1 / step;
  const most = Math.max(1, ...counts);
  const y = (value) => 5 + (HEIGHT - BOTTOM - 8) * (1 - value / most);
  const wide = (width - LEFT) / counts.length;
  const columns = counts.map((count, place) => count
    ? s("rect", { x: x((place + 1) * step), y: y(count), width: Math.max(1, wide - 1), height: y(0) - y(count), class: "mark" })
    : null);
  return [...line(y(0), "0"), ...line(y(most), most.toFixed(1)), ...times(), ...columns.filter(Boolean)];
}
