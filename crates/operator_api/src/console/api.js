// Asks the host, and hears from it.

const KEY = "berth-token";

/** What the host refused, with its cause and remedy. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || "the host gave no reason");
    this.problem = problem;
  }
}

let token = sessionStorage.getItem(KEY);

export function signIn(text) {
  token = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

export const hasToken = () => Boolean(token);

function headers(more) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/** The answer to a request, as JSON. */
export async function ask(method, path, body) {
  const sent = { method, headers: headers({}), cache: "no-store" };
  if (body !== undefined) {
    sent.headers["Content-Type"] = "application/json";
    sent.body = JSON.stringify(body);
  }
  const response = await fetch(path, sent);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused({ status: response.status, ...answer });
  return answer;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);

/** Exchanges the key of a link for a token, if there is one. */
export async function follow() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!key) return;
  // Good once: nobody is to find it in the history.
  history.replaceState(null, "", location.pathname);
  const session = await ask("POST", "/v1/session", { key });
  signIn(session.token);
}

/** Hears one stream of events to its end. */
export async function hears(path, hear, signal) {
  const response = await fetch(path, { headers: headers({}), cache: "no-store", signal });
  if (!response.ok) throw new Refused(await response.json().catch(() => ({})));
  await read(response.body, hear);
}

/**
 * Hears events for ever: `hear(name, data)`. `linked(text)` is told how the
 * connection is, `denied()` when nobody is let in any more.
 */
export async function listen(hear, linked, denied) {
  let last = null;
  let pause = 500;
  for (;;) {
    try {
      const more = last ? { "Last-Event-ID": last } : {};
      const response = await fetch("/v1/events", { headers: headers(more), cache: "no-store" });
      if (response.status === 401) return denied();
      if (!response.ok) throw new Error(String(response.status));
      linked("");
      pause = 500;
      await read(response.body, (name, data, id) => {
        if (id) last = id;
        hear(name, data);
      });
    } catch {
      // Said below; it is tried again.
    }
    linked("no connection; trying again");
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, 8000);
  }
}

async function read(body, hear) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data) hear(event.event, JSON.parse(event.data), event.id);
        event = {};
        continue;
      }
      const colon = line.indexOf(": ");
      if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
    }
  }
}
