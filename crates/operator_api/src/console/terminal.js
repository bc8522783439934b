// A guest's console: draws the screen that the host keeps, and sends keys.

import { hears, post } from "./api.js";
import { show } from "./dialog.js";
import { h, say } from "./dom.js";

/** Characters that are sent at once. */
const AT_ONCE = 1000;

const KEYS = {
  Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", Insert: "\x1b[2~", Delete: "\x1b[3~",
  PageUp: "\x1b[5~", PageDown: "\x1b[6~",
  F1: "\x1bOP", F2: "\x1bOQ", F3: "\x1bOR", F4: "\x1bOS", F5: "\x1b[15~", F6: "\x1b[17~", F7: "\x1b[18~",
  F8: "\x1b[19~", F9: "\x1b[20~", F10: "\x1b[21~", F11: "\x1b[23~", F12: "\x1b[24~",
};
const ARROWS = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", Home: "H", End: "F" };

/** Opens the console of a partition. */
export function openConsole(one) {
  const path = `/v1/partitions/${encodeURIComponent(one.name)}/console`;
  const screen = new Screen();
  const leave = new AbortController();
  const keys = h("textarea", {
    class: "keys", "aria-label": `Keys for the console of ${one.name}`,
    autocomplete: "off", autocapitalize: "off", autocorrect: "off", spellcheck: "false", rows: 1,
  });
  const note = h("p", { class: "quiet", role: "status" });
  const typist = new Typist(`${path}/keys`, (problem) => say(note, problem));
  const dialog = show({
    title: `Console of ${one.name}`,
    body: [h("div", { class: "terminal" }, screen.root, keys), note],
    closed: () => leave.abort(),
  });
  dialog.classList.add("wide-dialog");
  // A click puts the focus where keys are taken; a selection stays.
  screen.root.addEventListener("click", () => getSelection().isCollapsed && keys.focus());
  keys.addEventListener("keydown", (event) => {
    if (event.ctrlKey && event.key === "]") return dialog.close();
    const text = keyOf(event, screen.application);
    if (text === null) return;
    event.preventDefault();
    event.stopPropagation();
    typist.type(text);
  });
  keys.addEventListener("input", (event) => {
    if (event.isComposing) return;
    typist.type(keys.value.replaceAll("\n", "\r"));
    keys.value = "";
  });
  keys.focus();
  const heard = (name, shown) => {
    screen.draw(shown);
    say(note, shown.over ? "Nothing runs here: these are its last words." : "Ctrl-] leaves.");
    keys.disabled = shown.over;
  };
  hears(path, heard, leave.signal)
    .then(() => screen.over || say(note, "The console has ended."))
    .catch((error) => leave.signal.aborted || say(note, error.message));
}

/** What a key sends; null if the page or the text field sees to it. */
function keyOf(event, application) {
  if (event.isComposing || event.metaKey) return null;
  const { key } = event;
  if (key === "Tab" && event.shiftKey) return "\x1b[Z";
  if (key in ARROWS) return `${application ? "\x1bO" : "\x1b["}${ARROWS[key]}`;
  if (key in KEYS) return KEYS[key];
  if (key.length !== 1) return null;
  if (event.ctrlKey && !event.altKey) {
    // Copying what is selected, and pasting, are the browser's.
    if (key === "v" || (key === "c" && !getSelection().isCollapsed)) return null;
    const code = key === " " ? 0 : key.toUpperCase().charCodeAt(0) & 0x1f;
    return /^[a-z@[\\\]^_ ]$/i.test(key) ? String.fromCharCode(code) : null;
  }
  return event.altKey && !event.ctrlKey ? `\x1b${key}` : null;
}

/** Sends what is typed in order, as much at once as has come meanwhile. */
class Typist {
  constructor(path, failed) {
    Object.assign(this, { path, failed, waiting: [], busy: false });
  }

  type(text) {
    this.waiting.push(...text);
    if (!this.busy) this.send();
  }

  async send() {
    this.busy = true;
    try {
      while (this.waiting.length) {
        const text = this.waiting.splice(0, AT_ONCE).join("");
        await post(this.path, { text });
      }
    } catch (error) {
      this.waiting = [];
      this.failed(error.message);
    }
    this.busy = false;
  }
}

class Screen {
  constructor() {
    this.root = h("div", { class: "screen", role: "log", "aria-live": "off", tabindex: "-1" });
    this.rows = [];
    this.application = false;
    this.over = false;
  }

  draw(shown) {
    this.application = shown.application_keys;
    this.over = shown.over;
    const atEnd = this.root.scrollTop + this.root.clientHeight >= this.root.scrollHeight - 4;
    while (this.root.children.length < shown.lines) {
      this.root.append(h("div", { class: "line" }));
      this.rows.push([]);
    }
    while (this.root.children.length > shown.lines) {
      this.root.lastChild.remove();
      this.rows.pop();
    }
    const before = this.cursor;
    this.cursor = shown.cursor;
    const changed = new Set();
    for (const { line, runs } of shown.rows) {
      this.rows[line] = runs;
      changed.add(line);
    }
    for (const cursor of [before, shown.cursor]) if (cursor) changed.add(cursor[1]);
    for (const line of changed) if (this.rows[line]) this.drawLine(line);
    if (atEnd) this.root.scrollTop = this.root.scrollHeight;
  }

  drawLine(line) {
    const at = this.cursor && this.cursor[1] === line ? this.cursor[0] : null;
    const pieces = at === null ? this.rows[line] : withCursor(this.rows[line], at);
    this.root.children[line].replaceChildren(...pieces.map(piece));
  }
}

/** Splits the runs of a line so that the cursor is one of them. */
function withCursor(runs, at) {
  const pieces = [];
  let column = 0;
  let found = false;
  for (const run of runs) {
    const letters = [...run.text];
    const place = at - column;
    if (!found && place < letters.length) {
      found = true;
      if (place) pieces.push({ ...run, text: letters.slice(0, place).join("") });
      pieces.push({ ...run, text: letters[place], cursor: true });
      const rest = letters.slice(place + 1).join("");
      if (rest) pieces.push({ ...run, text: rest });
    } else pieces.push(run);
    column += letters.length;
  }
  if (!found) {
    if (at > column) pieces.push({ text: " ".repeat(at - column) });
    pieces.push({ text: " ", cursor: true });
  }
  return pieces;
}

function piece(run) {
  const reversed = (run.style || "").includes("r");
  const [ink, ground] = reversed ? [run.ground || "ground", run.ink || "ink"] : [run.ink, run.ground];
  const styles = [...(run.style || "")].filter((one) => one !== "r").map((one) => `style-${one}`);
  const element = h("span", { class: [...styles, run.cursor ? "cursor" : ""].filter(Boolean).join(" ") || null }, run.text);
  if (ink) element.style.color = colour(ink);
  if (ground) element.style.background = colour(ground);
  return element;
}

const LEVELS = [0, 95, 135, 175, 215, 255];

function colour(text) {
  if (text[0] === "#") return text;
  if (text === "ink" || text === "ground") return `var(--term-${text})`;
  const number = Number(text);
  if (number < 16) return `var(--term-${number})`;
  if (number > 231) return `rgb(${[0, 0, 0].map(() => 8 + 10 * (number - 232)).join(" ")})`;
  const cube = number - 16;
  return `rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((level) => LEVELS[level]).join(" ")})`;
}
