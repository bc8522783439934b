// Main storage, drawn to scale: partitions slide when they move, and can be
// taken to another place, onto another one, or by their lower edge.

import * as actions from "./actions.js";
import { $, h, keep, say } from "./dom.js";
import { size } from "./format.js";
import { gaps, inTheWay } from "./store.js";

/** Pixels within which an edge draws another one. */
const MAGNET = 7;
/** Pixels before a press is a pull. */
const SLACK = 4;
/** Pixels of a way that is worth to be seen as a slide. */
const SLIDE = 6;

export class Block {
  constructor(root, role) {
    this.root = root;
    this.role = role;
    this.plan = null;
    this.pull = null;
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.free = h("div", { class: "layer", "aria-hidden": "true" });
    this.planned = h("div", { class: "layer", "aria-hidden": "true" });
    this.parts = h("div", { class: "layer parts", role: "list", "aria-label": "Partitions by origin" });
    this.ghost = h("div", { class: "ghost", hidden: true, "aria-hidden": "true" });
    this.frame = h("div", { class: "frame" }, this.free, this.parts, this.planned, this.ghost);
    root.append(this.axis, this.frame);
    window.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.pull) this.drop(false);
    });
  }

  /** Shows what a compaction would do; null for nothing. */
  showPlan(plan) {
    this.plan = plan;
    if (this.state) this.render(this.state);
  }

  render(state) {
    this.state = state;
    const all = state.host.main_storage;
    if (!all) return;
    // Asked once, before anything is written: each time after that, the browser
    // would have to find out anew.
    const height = this.frame.clientHeight;
    const place = (element, origin, bytes) => {
      const placed = `${origin} ${bytes} ${all} ${height}`;
      if (element.placed === placed) return false;
      element.placed = placed;
      // The browser draws each step of a slide anew.
      const way = (Math.abs(origin - (element.at ?? origin)) / all) * height;
      element.at = origin;
      element.classList.toggle("slides", way >= SLIDE);
      element.style.setProperty("--top", `${(100 * origin) / all}%`);
      element.style.setProperty("--height", `${(100 * bytes) / all}%`);
      element.classList.toggle("low", (bytes / all) * height < 30);
      element.classList.toggle("tiny", (bytes / all) * height < 13);
      return true;
    };
    const ticks = scale(all);
    keep(this.axis, ticks, (tick) => tick, () => h("span"), (element, tick) => {
      element.style.setProperty("--top", `${(100 * tick) / all}%`);
      say(element, size(tick));
    });
    keep(this.free, gaps(state), (gap) => gap.origin, () => h("div", { class: "gap" }, h("span")),
      (element, gap) => {
        place(element, gap.origin, gap.size);
        say(element.firstChild, `${size(gap.size)} free`);
      });
    keep(this.parts, state.host.partitions, (one) => one.name, (one) => this.make(one),
      (element, one) => {
        const pulled = this.pull?.name === one.name;
        const target = this.pull?.over?.name === one.name;
        // Most are as they were.
        const shown = `${pulled} ${target} ${all} ${height}`;
        if (element.one === one && element.shown === shown) return;
        Object.assign(element, { one, shown });
        const change = one.change;
        const part = change && change.total ? Math.min(1, change.done / change.total) : 0;
        const from = one.origin + (change ? (change.origin - one.origin) * part : 0);
        place(element, from, one.size);
        const kept = ["low", "tiny", "slides"].filter((kind) => element.classList.contains(kind));
        element.className = ["part", one.state, ...kept].join(" ");
        element.classList.toggle("pulled", pulled);
        element.classList.toggle("target", target);
        const take = element.firstElementChild;
        say(take.children[0], one.name);
        say(take.children[1], facts(one));
        take.setAttribute("aria-label", label(one));
      });
    const outlines = this.outlines(state);
    keep(this.planned, outlines, (one) => `${one.name} ${one.to}`, (one) =>
      h("div", { class: "outline" }, h("span", {}, `${one.name} → ${size(one.to)}`)),
      (element, one) => place(element, one.to, one.size));
  }

  /** Where partitions are going, by moves under way and by the plan. */
  outlines(state) {
    const moving = state.host.partitions.filter((one) => one.change && one.change.kind !== "resize");
    const under = moving.map((one) => ({ name: one.name, to: one.change.origin, size: one.change.size }));
    const last = [...state.operations.values()].filter((one) => one.state === "running" && one.plan).pop();
    const plan = this.plan || (last && last.plan);
    const known = (name) => state.host.partitions.find((one) => one.name === name);
    const steps = (plan ? plan.moves : []).filter((one) => known(one.name)?.origin !== one.to);
    const fresh = steps.filter((one) => !under.some((other) => other.name === one.name && other.to === one.to));
    return [...under, ...fresh];
  }

  make(one) {
    const name = one.name;
    const current = () => this.state.host.partitions.find((other) => other.name === name);
    const take = h("button", {
      type: "button",
      class: "take",
      title: this.role() === "viewer" ? null : "Enter: all it can do · m: move · r: resize · or pull it",
      onclick: () => {
        if (!this.wasPulled && current()) actions.menu(current(), this.state, this.role());
        this.wasPulled = false;
      },
      onkeydown: (event) => this.key(event, current()),
    }, h("span", { class: "name" }), h("span", { class: "facts" }));
    const edge = h("div", { class: "edge", title: "pull to expand or shrink" });
    take.addEventListener("pointerdown", (event) => this.press(event, current(), false));
    edge.addEventListener("pointerdown", (event) => this.press(event, current(), true));
    return h("div", { class: "part", role: "listitem" }, take, edge);
  }

  perPixel() {
    return this.state.host.main_storage / this.frame.clientHeight;
  }

  press(event, one, edge) {
    // A finger scrolls; it has the menu.
    if (!one || event.pointerType === "touch" || event.button !== 0 || this.role() === "viewer" || this.pull) return;
    const y = event.clientY;
    const begin = { y, one, edge, id: event.pointerId };
    const moved = (next) => {
      if (!this.pull && Math.abs(next.clientY - y) < SLACK) return;
      if (!this.pull) this.pull = { name: one.name, one, edge };
      this.wasPulled = !edge;
      this.drag(begin, next);
    };
    const ended = (last) => {
      window.removeEventListener("pointermove", moved);
      window.removeEventListener("pointerup", ended);
      window.removeEventListener("pointercancel", ended);
      if (this.pull) this.drop(last.type === "pointerup");
    };
    window.addEventListener("pointermove", moved);
    window.addEventListener("pointerup", ended);
    window.addEventListener("pointercancel", ended);
    if (edge) event.preventDefault();
  }

  drag({ y, one, edge }, event) {
    const by = (event.clientY - y) * this.perPixel();
    if (edge) return this.stretch(one, this.toEdge(one.origin + one.size + by, one) - one.origin);
    const box = this.frame.getBoundingClientRect();
    const under = (event.clientY - box.top) * this.perPixel();
    const inside = event.clientX > box.left && event.clientX < box.right;
    const over = inside && this.state.host.partitions.find(
      (other) => other.name !== one.name && under >= other.origin && under < other.origin + other.size);
    this.carry(one, this.snap(one, one.origin + by), over || null);
  }

  /** A place that is a multiple of the unit and near an edge if there is one. */
  snap(one, origin) {
    const { unit, main_storage: all } = this.state.host;
    const near = MAGNET * this.perPixel();
    const edges = [0, all, ...this.state.host.partitions.flatMap((other) =>
      other.name === one.name ? [] : [other.origin, other.origin + other.size])];
    const places = edges.flatMap((edge) => [edge, edge - one.size]);
    const best = places.filter((place) => Math.abs(place - origin) < near)
      .sort((a, b) => Math.abs(a - origin) - Math.abs(b - origin))[0];
    const wanted = best ?? Math.round(origin / unit) * unit;
    return Math.max(0, Math.min(all - one.size, wanted));
  }

  toEdge(end, one) {
    const { unit, main_storage: all } = this.state.host;
    const near = MAGNET * this.perPixel();
    const edges = [all, ...this.state.host.partitions.filter((other) => other.origin > one.origin).map((other) => other.origin)];
    const best = edges.find((edge) => Math.abs(edge - end) < near);
    return Math.max(one.origin + unit, Math.min(all, best ?? Math.round(end / unit) * unit));
  }

  /** Shows a partition at another place, and who is in the way. */
  carry(one, to, over) {
    const way = inTheWay(this.state, to, one.size, [one.name]);
    Object.assign(this.pull, { to, over });
    if (over) this.hint(`${one.name} and ${over.name} change places`, true);
    else if (way.length) this.hint(`${size(to)}: ${way.map((other) => other.name).join(", ")} in the way`, false);
    else this.hint(`${one.name} to ${size(to)}: nobody is in the way`, true);
    this.draw(to, one.size, over ? "swap" : way.length ? "bad" : "good");
  }

  stretch(one, bytes) {
    const way = inTheWay(this.state, one.origin, bytes, [one.name]);
    Object.assign(this.pull, { size: bytes });
    const blocked = way.length ? `; ${way.map((other) => other.name).join(", ")} in the way` : "";
    this.hint(`${one.name}: ${size(one.size)} to ${size(bytes)}${blocked}`, !way.length);
    this.draw(one.origin, bytes, way.length ? "bad" : "good");
  }

  draw(origin, bytes, kind) {
    const all = this.state.host.main_storage;
    this.ghost.hidden = false;
    this.ghost.className = `ghost ${kind}`;
    this.ghost.style.setProperty("--top", `${(100 * origin) / all}%`);
    this.ghost.style.setProperty("--height", `${(100 * bytes) / all}%`);
    this.render(this.state);
  }

  hint(text, good) {
    const hint = $("hint");
    say(hint, text);
    hint.classList.toggle("bad", !good);
  }

  drop(wanted) {
    const { one, edge, to, size: bytes, over } = this.pull;
    this.pull = null;
    this.ghost.hidden = true;
    this.hint("", true);
    this.render(this.state);
    const back = () => this.parts.querySelector(`[data-key="${CSS.escape(one.name)}"] .take`)?.focus();
    if (!wanted) return;
    if (edge && bytes !== one.size) actions.resize(one, bytes, back);
    else if (over) actions.exchange(one, over, back);
    else if (!edge && to !== one.origin) actions.move(one, to, back);
  }

  /** The same without a pointer: m takes it, arrows move it, Enter drops it. */
  key(event, one) {
    if (!one || this.role() === "viewer") return;
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -16, PageDown: 16 };
    if (!this.pull) {
      if (event.key !== "m" && event.key !== "r") return;
      const edge = event.key === "r";
      this.pull = { name: one.name, one, edge, to: one.origin, size: one.size };
      this.hint(edge ? "arrows change its size; Enter to go on, Escape to leave it" : "arrows move it; Enter to go on, Escape to leave it", true);
      this.draw(one.origin, one.size, "good");
    } else if (event.key in steps) {
      const by = steps[event.key] * (event.shiftKey ? 16 : 1) * this.state.host.unit;
      const { main_storage: all, unit } = this.state.host;
      if (this.pull.edge) this.stretch(one, Math.max(unit, Math.min(all - one.origin, this.pull.size + by)));
      else this.carry(one, Math.max(0, Math.min(all - one.size, this.pull.to + by)), null);
    } else if (event.key === "Enter") this.drop(true);
    else if (event.key === "Tab") return this.drop(false);
    else return;
    event.preventDefault();
  }
}

function facts(one) {
  if (one.change?.kind === "move") return `to ${size(one.change.origin)}`;
  return one.state === "running" ? size(one.size) : `${size(one.size)}, ${one.state}`;
}

function label(one) {
  return `${one.name}, ${one.state}, ${size(one.size)} at ${size(one.origin)}`;
}

/** Round places, eight or so. */
function scale(all) {
  let step = 1 << 20;
  while (all / step > 10) step *= 2;
  const ticks = [];
  for (let at = 0; at < all - step / 2; at += step) ticks.push(at);
  return [...ticks, all];
}
