// What this browser remembers. Storage may be full or forbidden: then the pages work on and simply forget.

function reader(storage) {
  return (name, fallback) => {
    try {
      const text = storage().getItem(`corral.${name}`);
      return text === null ? fallback : JSON.parse(text);
    } catch {
      return fallback;
    }
  };
}

function writer(storage) {
  return (name, value) => {
    try {
      if (value === undefined) storage().removeItem(`corral.${name}`);
      else storage().setItem(`corral.${name}`, JSON.stringify(value));
    } catch {
      // Nothing depends on it.
    }
  };
}

/** Kept for this browser. Writing undefined forgets. */
export const browserMemory = { read: reader(() => localStorage), write: writer(() => localStorage) };

/** Kept for this tab until it closes; another tab knows nothing of it. */
export const tabMemory = { read: reader(() => sessionStorage), write: writer(() => sessionStorage) };

/** Calls `action` when another tab writes `name` to the browser's memory. */
export function whenOtherTabWrites(name, action) {
  addEventListener("storage", (event) => {
    if (event.key === `corral.${name}` || event.key === null) action();
  });
}
