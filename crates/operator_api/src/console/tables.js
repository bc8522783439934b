// Partitions and operations as lists.

import * as actions from "./actions.js";
import { announce, h, keep, say } from "./dom.js";
import { ago, size } from "./format.js";
import { command, result } from "./words.js";

/** Operations that are shown. */
const SHOWN = 8;

export class Partitions {
  constructor(root, role) {
    this.role = role;
    this.body = h("tbody", { role: "rowgroup" });
    const head = ["Name", "State", "Origin", "Size", "Gap", "vCPUs", "Image"].map((text, place) =>
      h("th", { scope: "col", role: "columnheader", class: CLASSES[place] }, text));
    // Its rows are laid out one by one, for which the browser would forget that it
    // is a table.
    root.append(h("table", { role: "table", "aria-labelledby": "partitions-title" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...head)), this.body));
    this.none = h("p", { class: "none" }, "There are no partitions.");
    root.append(this.none);
  }

  render(state) {
    this.none.hidden = state.host.partitions.length > 0;
    keep(this.body, state.host.partitions, (one) => one.name, (one) => this.make(one.name, () => this.state),
      (row, one) => {
        if (row.one === one) return;
        row.one = one;
        row.className = one.state;
        const dot = row.children[1].firstChild;
        dot.className = `dot ${one.state}`;
        say(row.children[0].firstChild, one.name);
        const waits = one.state === "running" && !one.ready && !one.pool ? "starting" : one.state;
        say(row.children[1].lastChild, waits);
        row.children[1].title = one.reason || "";
        const cells = [size(one.origin), size(one.size), one.gap ? size(one.gap) : "–", String(one.vcpus), one.image];
        cells.forEach((text, place) => say(row.children[place + 2], text));
      });
    this.state = state;
  }

  make(name, state) {
    const open = () => {
      const one = state().host.partitions.find((other) => other.name === name);
      if (one) actions.menu(one, state(), this.role());
    };
    return h("tr", { role: "row" },
      h("th", { scope: "row", role: "rowheader" }, h("button", { type: "button", class: "plain", onclick: open })),
      h("td", { role: "cell" }, h("i", { class: "dot", "aria-hidden": "true" }), h("span")),
      ...CLASSES.slice(2).map((kind) => h("td", { role: "cell", class: kind })));
  }
}

const CLASSES = ["", "", "number", "number", "number", "number wide", "wide"];

export class Operations {
  constructor(root, role) {
    this.root = root;
    this.role = role;
    this.ended = null;
  }

  render(state) {
    // Waiting changes nothing.
    const all = [...state.operations.values()].filter((one) => one.command.command !== "await");
    this.tell(all);
    const shown = all.slice(-SHOWN).reverse();
    keep(this.root, shown.length ? shown : [{ id: "none" }], (one) => one.id,
      (one) => one.id === "none" ? h("li", { class: "none" }, "Nothing has been done yet.") : make(one),
      (element, one) => one.id !== "none" && this.update(element, one));
  }

  update(element, one) {
    element.className = one.state;
    const [what, when, how, bar, cancel] = element.children;
    say(what, command(one.command));
    const took = ((one.ended || Date.now()) - one.started) / 1000;
    say(when, one.ended ? `${took < 10 ? took.toFixed(2) : Math.round(took)} s` : ago(took));
    say(how, one.cancelling && !one.ended ? "ending after the move in hand" : result(one));
    bar.hidden = one.state !== "running";
    if (one.total) bar.value = one.done / one.total;
    else bar.removeAttribute("value");
    const ends = ["compact", "expand"].includes(one.command.command);
    cancel.hidden = one.state !== "running" || one.cancelling || !ends || this.role() === "viewer";
  }

  /** Says what ended since the last time. */
  tell(all) {
    const ended = new Set(all.filter((one) => one.ended).map((one) => one.id));
    for (const one of all) {
      if (this.ended && ended.has(one.id) && !this.ended.has(one.id)) {
        announce(`${command(one.command)}: ${result(one)}`, one.state === "failed");
      }
    }
    this.ended = ended;
  }
}

function make(one) {
  const cancel = () => actions.cancel(one).catch((error) => announce(error.message, true));
  return h("li", {},
    h("b"), h("span", { class: "when" }), h("span", { class: "how" }),
    h("progress", { max: 1, "aria-label": "copied" }),
    h("button", { type: "button", onclick: cancel }, "End early"));
}
