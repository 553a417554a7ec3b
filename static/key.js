// The API key of this tab: asked for when the service wants one, kept until the tab closes.

import { element } from "./dom.js";
import { tabMemory } from "./remembered.js";

let asking = null;

/** The key in use, or undefined. */
export function currentKey() {
  return tabMemory.read("key");
}

/** Asks for a key, once for all who wait; resolves to the new key, or to undefined when it was dismissed. */
export function askForKey() {
  asking ??= showDialog(currentKey() !== undefined).finally(() => {
    asking = null;
  });
  return asking;
}

function showDialog(wasRefused) {
  const field = element("input", {
    id: "key-field", type: "password", autocomplete: "off", spellcheck: "false", required: "", "aria-describedby": "key-hint",
  });
  const dismiss = element("button", { type: "button", class: "quiet" }, "Not now");
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "key-heading" }, wasRefused ? "This key was not accepted" : "An API key is needed"),
    element("p", { id: "key-hint" }, "It is kept in this tab only, and forgotten when the tab closes."),
    element("label", { for: "key-field" }, "API key"),
    field,
    element("div", { class: "actions" }, element("button", { type: "submit", class: "primary" }, "Use this key"), dismiss),
  );
  const dialog = element("dialog", { "aria-labelledby": "key-heading" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    let key;
    form.addEventListener("submit", () => {
      key = field.value.trim() || undefined;
    });
    dismiss.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      if (key) tabMemory.write("key", key);
      dialog.remove();
      resolve(key);
    });
  });
}
