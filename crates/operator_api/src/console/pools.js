// Pools as rooms with seats: free, taken, being cleaned, broken.

import * as actions from "./actions.js";
import { $, announce, h, keep, say } from "./dom.js";
import { ago, seconds } from "./format.js";

const WORDS = {
  building: "building", free: "free", assigned: "assigned", in_use: "in use",
  cleaning: "cleaning", broken: "broken", leaving: "leaving",
};

export class Pools {
  constructor(root, role) {
    this.root = root;
    this.role = role;
  }

  render(state) {
    $("pools").hidden = state.pools.length === 0;
    this.state = state;
    keep(this.root, state.pools, (pool) => pool.name, (pool) => this.make(pool.name), (element, pool) => {
      const [title, alarm, seats, waiting] = element.children;
      say(title.children[0], pool.name);
      say(title.children[1], summary(pool));
      title.children[2].hidden = this.role() === "viewer";
      alarm.hidden = !pool.alarm;
      say(alarm.firstChild, pool.alarm ? `It builds no more machines: ${pool.alarm} ` : "");
      alarm.lastChild.hidden = this.role() === "viewer";
      keep(seats, pool.members, (member) => member.name, seat, update);
      const queue = state.waiting.filter((one) => !one.pool || one.pool === pool.name);
      waiting.hidden = !queue.length;
      say(waiting, queue.length ? `Waiting: ${queue.map(wait).join(" · ")}` : "");
    });
  }

  make(name) {
    const pool = () => this.state.pools.find((one) => one.name === name);
    const resume = () => actions.resumePool(pool()).catch((error) => announce(error.message, true));
    return h("article", { class: "pool" },
      h("div", { class: "title" }, h("h3"), h("p", { class: "quiet" }),
        h("button", { type: "button", onclick: () => actions.resizePool(pool()) }, "Resize…")),
      h("p", { class: "problem" }, h("span"), h("button", { type: "button", onclick: resume }, "Try again")),
      h("ul", { class: "seats" }),
      h("p", { class: "waiting" }));
  }
}

function wait(one) {
  return `${one.user} for ${one.tpn}, ${ago((Date.now() - one.since) / 1000)}`;
}

function summary(pool) {
  const count = (state) => pool.members.filter((one) => one.state === state).length;
  const some = ["free", "in_use", "cleaning", "building", "broken"].filter((state) => count(state));
  const counts = some.map((state) => `${count(state)} ${WORDS[state]}`);
  const queue = pool.waiting ? [`${pool.waiting} waiting`] : [];
  return [`${pool.min}–${pool.max} machines`, ...counts, ...queue].join(", ");
}

function seat() {
  return h("li", { class: "seat" }, h("b"), h("span", { class: "user" }), h("span", { class: "quiet" }));
}

function update(element, one) {
  element.className = `seat ${one.state}${one.visited ? " visited" : ""}`;
  say(element.children[0], one.name);
  const who = one.user || (one.state === "assigned" ? "…" : WORDS[one.state] || one.state);
  say(element.children[1], one.tpn ? `${who} · ${one.tpn}` : one.visited ? `${who}, visited` : who);
  say(element.children[2], ago((Date.now() - one.since) / 1000));
  const cleaned = one.put_back_micros ? `, put back ${one.put_back_times} times, last in ${seconds(one.put_back_micros / 1e6)}` : "";
  const used = one.conversation ? `, ${who} · ${one.tpn}, conversation ${one.conversation}` : "";
  element.title = `${one.name}: ${WORDS[one.state] || one.state}${used}${cleaned}`;
}
