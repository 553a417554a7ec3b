// Tells the reader when the page has lost its live connection, and when it has it again.

import { element } from "./dom.js";

// A service that restarts quickly, or a token that is renewed, is not worth a word.
const PATIENCE_MILLISECONDS = 800;

/** Keeps `notice` (a live region) in step with the websocket's state. */
export function showConnection(notice, live) {
  const retry = element("button", { type: "button", class: "link" }, "Try now");
  retry.addEventListener("click", () => live.connectNow());
  let timer = null;
  live.watchState((state) => {
    if (state === "open") {
      clearTimeout(timer);
      timer = null;
      if (!notice.hidden) notice.replaceChildren();
      notice.hidden = true;
    } else if (state === "lost" && timer === null) {
      timer = setTimeout(() => {
        notice.hidden = false;
        notice.replaceChildren("Live connection lost. Reconnecting; until then this page asks from time to time. ", retry);
      }, PATIENCE_MILLISECONDS);
    }
  });
}
