// Who wore which machine, and who got none; page by page.

import { get } from "./api.js";
import { h } from "./dom.js";
import { moment, seconds } from "./format.js";

export class Audit {
  constructor(root, search) {
    this.body = h("tbody");
    this.older = h("button", { type: "button", hidden: true, onclick: () => this.load(true) }, "Older");
    this.note = h("p", { class: "none", role: "status" });
    const head = ["When", "User", "Program", "Machine", "For", "Ending"].map((text, place) =>
      h("th", { scope: "col", class: place === 4 ? "number" : "" }, text));
    root.append(h("table", { "aria-labelledby": "audit-title" }, h("thead", {}, h("tr", {}, ...head)), this.body), this.note, this.older);
    this.search = search;
    search.addEventListener("input", () => this.soon(250));
  }

  /** Loads the newest, once, a while later. */
  soon(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(false), milliseconds);
  }

  /** Something has ended: the newest are others, unless somebody reads older ones. */
  changed() {
    if (!this.reads) this.soon(1500);
  }

  async load(older) {
    const asked = (this.asked = (this.asked || 0) + 1);
    const query = new URLSearchParams({ limit: "30" });
    if (this.search.value) query.set("q", this.search.value);
    if (older && this.next) query.set("before", this.next);
    try {
      const page = await get(`/v1/audit?${query}`);
      if (asked !== this.asked) return;
      this.reads = older;
      if (!older) this.body.replaceChildren();
      this.body.append(...page.entries.map(row));
      this.next = page.next;
      this.older.hidden = page.next === null;
      const damaged = page.damaged ? `${page.damaged} lines of the log are damaged. ` : "";
      const none = this.body.children.length ? "" : this.search.value ? "Nothing found." : "Nobody has used a machine of a pool yet.";
      this.note.textContent = damaged + none;
    } catch (error) {
      this.note.textContent = error.message;
    }
  }
}

function row(one) {
  const took = one.record === "worn" && one.from !== null ? seconds((one.at - one.from) / 1000) : "–";
  const where = one.machine || one.pool || "–";
  return h("tr", { class: one.record, title: one.conversation ? `conversation ${one.conversation}` : "" },
    h("td", {}, moment(one.at)), h("td", {}, one.user), h("td", {}, one.tpn), h("td", {}, where),
    h("td", { class: "number" }, took), h("td", {}, one.how.replaceAll("-", " ")));
}
