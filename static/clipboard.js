// Copying. The clipboard interface exists on secure pages only, and a queue on the office network often is not one.

import { element } from "./dom.js";

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = element("textarea", { class: "visually-hidden", "aria-hidden": "true", tabindex: "-1", readonly: "" });
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

const NOTE_MILLISECONDS = 2000;

/** Makes `button` copy what `read()` returns, and say so on itself and through `announce`. */
export function copyOnClick(button, read, announce) {
  const label = button.textContent;
  let timer = null;
  button.addEventListener("click", async () => {
    const copied = await copyText(read());
    button.textContent = copied ? "Copied" : "Copying is not allowed here";
    announce(button.textContent);
    clearTimeout(timer);
    timer = setTimeout(() => {
      button.textContent = label;
    }, NOTE_MILLISECONDS);
  });
}
