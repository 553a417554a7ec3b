// Keeping the end of a growing answer in view, but only for a reader who is there.

import { byId } from "./dom.js";

const NEAR_PIXELS = 80;

/** Follows the lower edge of `target`. */
export class Tail {
  #target;
  #button = byId("latest");
  #growing = false;
  #following = false;
  #touching = false;
  #height = 0;

  constructor(target) {
    this.#target = target;
    addEventListener("scroll", () => this.#look(), { passive: true });
    // While text arrives the page scrolls by itself: the reader's own first move must not be lost in it.
    addEventListener("wheel", (event) => event.deltaY < 0 && scrollY > 0 && this.#leave(), { passive: true });
    addEventListener("touchstart", () => { this.#touching = true; }, { passive: true });
    for (const end of ["touchend", "touchcancel"]) addEventListener(end, () => { this.#touching = false; }, { passive: true });
    this.#button.addEventListener("click", () => {
      this.#following = true;
      this.keep();
    });
  }

  /** Whether more is to come: a reader begins at the end of what grows, and at the start of what is whole. */
  setGrowing(growing) {
    if (growing && !this.#growing) this.#following = true;
    this.#growing = growing;
    this.#showButton();
  }

  /** Leaves the page where it is. */
  stop() {
    this.#growing = false;
    this.#leave();
  }

  /** To be called after each growth. */
  keep() {
    if (this.#following && !this.#touching) {
      const hidden = this.#hidden();
      if (hidden > 0) scrollBy({ top: hidden + NEAR_PIXELS / 2, behavior: "instant" });
      this.#height = scrollY;
    }
    this.#showButton();
  }

  /** How many pixels of the target's end are below the window. */
  #hidden() {
    return this.#target.getBoundingClientRect().bottom - innerHeight;
  }

  #leave() {
    this.#following = false;
    this.#showButton();
  }

  /** Upwards, however little, is leaving; downwards to the end is coming back; `keep` has moved nothing by itself. */
  #look() {
    if (scrollY < this.#height) this.#following = false;
    else if (scrollY > this.#height && this.#hidden() < NEAR_PIXELS) this.#following = true;
    this.#height = scrollY;
    this.#showButton();
  }

  #showButton() {
    this.#button.hidden = !this.#growing || this.#following;
  }
}
