// What can be done, each with the dialog that names its effect.

import { post } from "./api.js";
import { begin, p, planned, show } from "./dialog.js";
import { h } from "./dom.js";
import { parseSize, size } from "./format.js";
import { openConsole } from "./terminal.js";

const at = (name, verb) => `/v1/partitions/${encodeURIComponent(name)}/${verb}`;

const list = (moves) =>
  h("ol", { class: "moves" }, ...moves.map((one) =>
    h("li", {}, `${one.name} (${size(one.size)}) from ${size(one.from)} to ${size(one.to)}`)));

const runs = (one) => one.state === "running" || one.state === "moving";

export function move(one, to, closed) {
  return planned({
    title: `Move ${one.name}`,
    plan: () => post("/v1/plans/move", { name: one.name, to }),
    effect: (plan) => [
      p(`From ${size(plan.from)} to ${size(plan.to)}. Nobody is in the way.`),
      p(runs(one)
        ? `At most ${size(plan.bytes)} are copied ${plan.direction}. The guest runs on, and stands still for a few milliseconds at the end.`
        : "Nothing runs in it: it moves on the map alone."),
    ],
    verb: "Move",
    act: () => begin("POST", at(one.name, "move"), { to }),
    closed,
  });
}

export function exchange(a, b, closed) {
  return planned({
    title: `Exchange ${a.name} and ${b.name}`,
    plan: () => post("/v1/plans/exchange", { a: a.name, b: b.name }),
    effect: (plan) => [
      list(plan.partitions),
      p("Both guests stand still while their storage is swapped, some tens of milliseconds for each 100M."),
    ],
    verb: "Exchange",
    act: () => begin("POST", "/v1/exchange", { a: a.name, b: b.name }),
    closed,
  });
}

export function resize(one, to, closed, makeRoom = false) {
  const grows = to > one.size;
  return planned({
    title: `${grows ? "Expand" : "Shrink"} ${one.name}`,
    plan: () => post("/v1/plans/resize", { name: one.name, to, make_room: makeRoom }),
    effect: (plan) => [
      p(`From ${size(plan.from)} to ${size(plan.to)}.`),
      ...(plan.moves.length ? [p("First these make room, live:"), list(plan.moves)] : []),
      p(!runs(one)
        ? "Nothing runs in it: it starts with that size."
        : grows ? "The guest has the memory at once." : "The guest gives back what it can; the rest is named."),
    ],
    verb: grows ? "Expand" : "Shrink",
    act: () => begin("POST", at(one.name, grows ? "expand" : "shrink"), grows ? { to, make_room: makeRoom } : { to }),
    refused: () => grows && !makeRoom && h("p", {},
      h("button", {
        type: "button",
        onclick: (event) => {
          event.target.closest("dialog").close();
          resize(one, to, closed, true);
        },
      }, "Move others out of the way…")),
    closed,
  });
}

export function compact(shown) {
  return planned({
    title: "Compact main storage",
    plan: async () => {
      const plan = await post("/v1/plans/compact");
      shown(plan);
      return plan;
    },
    effect: (plan) => [
      p(`${size(plan.free_size)} will be free in one range, at ${size(plan.free_origin)}.`),
      plan.moves.length ? list(plan.moves) : p("Nothing has to be moved."),
      ...(plan.moves.length
        ? [p(`At most ${size(plan.bytes)} are copied${plan.least ? "; no plan copies less" : ""}. Guests run on. It can be ended after each move.`)]
        : []),
    ],
    verb: "Compact",
    act: () => begin("POST", "/v1/compact", {}),
    closed: () => shown(null),
  });
}

export function start(one) {
  return begin("POST", at(one.name, "start"));
}

export function stop(one) {
  show({
    title: `Stop ${one.name}`,
    body: [
      p("Its guest is asked to power off, and made to after ten seconds. Its memory is lost; its range stays reserved for it."),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "now" }), " do not ask the guest"),
    ],
    verb: "Stop",
    danger: true,
    act: (form) => begin("POST", at(one.name, "stop"), { now: form.has("now") }),
  });
}

export function restart(one) {
  show({
    title: `Restart ${one.name}`,
    body: [p("Its guest is asked to power off, and started anew. Its memory is lost.")],
    verb: "Restart",
    danger: true,
    act: () => begin("POST", at(one.name, "restart"), { now: false }),
  });
}

export function remove(one) {
  show({
    title: `Delete ${one.name}`,
    body: [p("Its range becomes free, and its data disk is deleted.")],
    verb: "Delete",
    danger: true,
    act: () => begin("DELETE", `/v1/partitions/${encodeURIComponent(one.name)}`),
  });
}

const field = (label, name, value, more = {}) =>
  h("label", {}, `${label} `, h("input", { name, value, autocomplete: "off", spellcheck: "false", ...more }));

function wanted(form, name) {
  const bytes = parseSize(String(form.get(name)));
  if (bytes === null) throw new Error(`${name}: write a size like 128M or 1G`);
  return bytes;
}

export function create() {
  show({
    title: "New partition",
    body: [
      field("Name", "name", "", { required: true, pattern: "[a-z0-9-]+", maxlength: 31 }),
      field("Size", "size", "128M", { required: true }),
      field("Origin", "origin", "", { placeholder: "best fit" }),
      field("Image", "image", "minimal", { required: true }),
      field("vCPUs", "vcpus", "1", { type: "number", min: 1, max: 8, required: true }),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "start", checked: true }), " start it"),
    ],
    verb: "Create",
    act: (form) => {
      const body = {
        name: form.get("name"),
        size: wanted(form, "size"),
        image: form.get("image"),
        vcpus: Number(form.get("vcpus")),
        start: form.has("start"),
      };
      if (form.get("origin")) body.origin = wanted(form, "origin");
      return begin("POST", "/v1/partitions", body);
    },
  });
}

/** Everything that can be done to a partition, by typing. */
export function menu(one, state, role) {
  const dialog = show({ title: one.name, body: choices(one, state, role, (act) => { dialog.close(); act(); }) });
}

function choices(one, state, role, close) {
  const button = (text, act, danger = false) =>
    h("button", { type: "button", class: danger ? "danger" : "", onclick: () => close(act) }, text);
  const running = runs(one);
  const facts = p(`${one.state}, ${size(one.size)} at ${size(one.origin)}, ${one.vcpus} vCPU, image ${one.image}`);
  const said = one.reason ? [h("p", { class: "problem" }, one.reason)] : [];
  if (role === "viewer") return [facts, ...said];
  const power = h("p", { class: "row" },
    running ? button("Stop…", () => stop(one), true) : button("Start", () => start(one)),
    button(running ? "Console…" : "Last words…", () => openConsole(one)),
    running ? button("Restart…", () => restart(one), true) : null,
    !running && role === "administrator" ? button("Delete…", () => remove(one), true) : null);
  const typed = (label, name, value, verb, act) => {
    const input = h("input", { id: `menu-${name}`, value, autocomplete: "off" });
    const go = () => {
      const bytes = parseSize(input.value);
      input.setCustomValidity(bytes === null ? "write a size like 128M or 1G" : "");
      if (input.reportValidity()) close(() => act(bytes));
    };
    return h("p", { class: "row" }, h("label", { for: input.id }, label), input,
      h("button", { type: "button", onclick: go }, verb));
  };
  const others = state.host.partitions.filter((other) => other.name !== one.name);
  const select = h("select", { id: "menu-with" }, ...others.map((other) => h("option", {}, other.name)));
  return [
    facts,
    ...said,
    power,
    typed("Origin", "origin", size(one.origin), "Move…", (to) => move(one, to)),
    typed("Size", "size", size(one.size), "Resize…", (to) => resize(one, to)),
    others.length
      ? h("p", { class: "row" }, h("label", { for: "menu-with" }, "With"), select,
        button("Exchange…", () => {
          const other = others.find((other) => other.name === select.value);
          if (other) exchange(one, other);
        }))
      : null,
  ].filter(Boolean);
}

export function resizePool(pool) {
  show({
    title: `Machines of ${pool.name}`,
    body: [
      field("Kept ready", "min", pool.min, { type: "number", min: 0, max: pool.limit, required: true }),
      field("At most", "max", pool.max, { type: "number", min: 0, max: pool.limit, required: true }),
      p(`The host file allows ${pool.limit}. Free machines over the maximum go at once, those in use when their conversation ends. A maximum of 0 closes the pool.`),
    ],
    verb: "Resize",
    act: (form) => begin("POST", `/v1/pools/${encodeURIComponent(pool.name)}/resize`,
      { min: Number(form.get("min")), max: Number(form.get("max")) }),
  });
}

export const resumePool = (pool) => begin("POST", `/v1/pools/${encodeURIComponent(pool.name)}/resume`);

export const cancel = (operation) => post(`/v1/operations/${operation.id}/cancel`);
