// The console: hears what there is and shows it.

import * as actions from "./actions.js";
import { follow, get, hasToken, listen, signIn } from "./api.js";
import { Audit } from "./audit.js";
import { Block } from "./block.js";
import { $, say } from "./dom.js";
import { size } from "./format.js";
import { Graphs } from "./graphs.js";
import { Pools } from "./pools.js";
import { apply, empty } from "./store.js";
import { Operations, Partitions } from "./tables.js";

const state = empty();
let role = "viewer";
const may = () => role;

const block = new Block($("block"), may);
const views = [block, new Partitions($("table"), may), new Operations($("operations"), may), new Pools($("seats"), may)];
const graphs = new Graphs($("charts"));
const audit = new Audit($("records"), $("search"));

function summary() {
  const { host } = state;
  const ending = host.ending ? " · ending" : "";
  say($("summary"), `${size(host.main_storage)}, ${size(host.free)} free · ${host.version}${ending}`);
}

const steps = [summary, ...[...views, graphs].map((view) => () => view.render(state))];
/** Milliseconds from one drawing to the next. */
const PAUSE = 100;
let due = false;
/** When it last began. */
let begun = -PAUSE;

/** Draws what there is, once for everything that came meanwhile. */
function draw() {
  if (due) return;
  due = true;
  setTimeout(() => {
    begun = performance.now();
    step(0);
  }, Math.max(0, begun + PAUSE - performance.now()));
}

/** One view in a frame, so that none takes long and keys are heard between. */
function step(place) {
  requestAnimationFrame(() => {
    // Whatever comes from here on may be too late for views that are drawn.
    if (place === 0) due = false;
    steps[place]();
    if (place + 1 < steps.length) step(place + 1);
  });
}

function hear(name, data) {
  apply(state, name, data);
  if (name === "member" || name === "everything") audit.changed();
  draw();
}

function signedOut(why) {
  signIn(null);
  $("console").hidden = true;
  $("leave").hidden = true;
  $("sign-in").hidden = false;
  say($("denied"), why);
  say($("link"), "");
  $("token").focus();
}

async function begin() {
  let who;
  try {
    await follow();
    who = await get("/v1/whoami");
  } catch (error) {
    const nobody = error.problem?.status === 401 && !hasToken() && !error.message.includes("link");
    return signedOut(nobody ? "" : error.message);
  }
  role = who.role;
  $("sign-in").hidden = true;
  $("console").hidden = false;
  $("leave").hidden = !hasToken();
  $("compact").hidden = role === "viewer";
  $("create").hidden = role !== "administrator";
  const linked = (text) => say($("link"), text || role);
  await listen(hear, linked, () => signedOut("This token is good no more."));
}

$("compact").addEventListener("click", () => actions.compact((plan) => block.showPlan(plan)));
$("create").addEventListener("click", () => actions.create());
$("leave").addEventListener("click", () => {
  signIn(null);
  location.reload();
});
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("token").value.trim());
  $("token").value = "";
  begin();
});
window.addEventListener("resize", draw);
// Times go on although nothing happens.
setInterval(() => document.hidden || draw(), 1000);

begin();
