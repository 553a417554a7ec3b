// Why a job waits though it is next in line: no backend answers. Looked for only while a job waits.

import { isAnyBackendAnswering } from "./api.js";

const FIRST_LOOK_MILLISECONDS = 1500;
const LOOK_MILLISECONDS = 5000;

export class Outage {
  #changed;
  #timer = null;
  #isWatching = false;
  isSeen = false;

  /** `changed` is called when `isSeen` has changed. */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Whether to look from now on. */
  watch(isWanted) {
    if (isWanted === this.#isWatching) return;
    this.#isWatching = isWanted;
    clearTimeout(this.#timer);
    if (isWanted) this.#timer = setTimeout(() => this.#look(), FIRST_LOOK_MILLISECONDS);
    else this.isSeen = false;
  }

  async #look() {
    const isSeen = !(await isAnyBackendAnswering());
    if (!this.#isWatching) return;
    this.#timer = setTimeout(() => this.#look(), LOOK_MILLISECONDS);
    if (isSeen === this.isSeen) return;
    this.isSeen = isSeen;
    this.#changed();
  }
}
