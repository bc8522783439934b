// Asks before something is changed, and says what that will do.

import { ask as askHost, Refused } from "./api.js";
import { announce, h } from "./dom.js";

/**
 * Shows a dialog. `body` are elements; `act`, if any, is called when it is
 * confirmed by the button `verb`; `danger` marks what cannot be undone.
 */
export function show({ title, body, verb, act, danger = false, closed }) {
  const problem = h("p", { class: "problem", role: "alert" });
  const confirm = act && h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    h("div", { class: "body" }, ...body),
    problem,
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, act ? "Cancel" : "Close"),
      confirm || null),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!act || confirm.disabled) return;
    confirm.disabled = true;
    try {
      await act(new FormData(form));
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      confirm.disabled = false;
    }
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (closed) closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Begins an operation; the list of operations shows how it goes on. */
export async function begin(method, path, body) {
  const operation = await askHost(method, path, body);
  announce(`operation ${operation.id} has begun`);
  return operation;
}

/**
 * Asks the host for a plan and shows its effect, or who is in the way.
 * `effect(plan)` are paragraphs.
 */
export async function planned({ title, plan, effect, verb, act, closed, refused }) {
  try {
    const found = await plan();
    show({ title, body: effect(found), verb, act: () => act(found), closed });
  } catch (error) {
    if (!(error instanceof Refused)) announce(error.message, true);
    const body = [h("p", {}, error.message)];
    const remedy = refused && refused(error);
    if (remedy) body.push(remedy);
    show({ title, body, closed });
  }
}

export const p = (...text) => h("p", {}, ...text);
