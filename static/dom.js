// Building and finding elements. Text always goes in as text: nothing here parses markup.

/** The element with this id; a page that lacks it is a mistake of ours, so it throws. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found;
}

/** A new element. `attributes` may hold `dataset` (an object); the other values become attributes. */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "dataset") Object.assign(created.dataset, value);
    else created.setAttribute(key, value);
  }
  created.append(...children);
  return created;
}

/** Sets text only when it differs: an unchanged live region stays silent and an unchanged row is not laid out again. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Makes `elements` the children of `parent`, in this order; those in place are not touched and keep their focus. */
export function arrange(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) {
    if (!wanted.has(child)) child.remove();
  }
  let next = parent.firstElementChild;
  for (const each of elements) {
    if (each === next) next = next.nextElementSibling;
    else parent.insertBefore(each, next);
  }
}

/** Calls `action` in the next animation frame, once, however often it is asked before that. */
export function oncePerFrame(action) {
  let scheduled = false;
  return () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      action();
    });
  };
}
