// The prompts sent from this browser: remembered here, their states from the service.

import { jobAddress, readStatus, RefusedError } from "./api.js";
import { arrange, byId, element, setText } from "./dom.js";
import { ago, isFinal, oneLine, statusWord } from "./format.js";
import { browserMemory, whenOtherTabWrites } from "./remembered.js";

const REMEMBERED_JOBS = 20;
const REMEMBERED_PROMPT_CHARACTERS = 20000;
const POLL_MILLISECONDS = 5000;
const WORDS_MILLISECONDS = 30000;

export class Recent {
  #live;
  #open;
  #jobs = browserMemory.read("recent", []);
  #rows = new Map();
  #shown = null;
  #unsubscribe = null;

  /** `open(job)` is called when one is chosen. */
  constructor(live, open) {
    this.#live = live;
    this.#open = open;
    byId("recent-forget").addEventListener("click", () => this.#forget());
    whenOtherTabWrites("recent", () => {
      this.#jobs = browserMemory.read("recent", []);
      this.#show();
    });
    setInterval(() => this.#show(), WORDS_MILLISECONDS);
    setInterval(() => live.state === "lost" && this.#refresh(), POLL_MILLISECONDS);
    this.#show();
    this.#refresh();
  }

  /** What is remembered of a job: `{id, prompt?, model, priority, status, created_at}`. */
  find(id) {
    return this.#jobs.find((job) => job.id === id);
  }

  add(job) {
    const prompt = job.prompt.length <= REMEMBERED_PROMPT_CHARACTERS ? job.prompt : undefined;
    this.#jobs = [{ ...job, prompt, title: oneLine(job.prompt, 120) }, ...this.#jobs].slice(0, REMEMBERED_JOBS);
    this.#save();
  }

  /** Takes in a status, if the job is one of these. */
  learn({ id, status }) {
    const job = this.find(id);
    if (!job || job.status === status) return;
    job.status = status;
    this.#save();
  }

  /** Marks the job that the page shows. */
  mark(id) {
    this.#shown = id;
    this.#show();
  }

  #save() {
    browserMemory.write("recent", this.#jobs);
    this.#show();
    this.#listen();
  }

  #forget() {
    this.#jobs = [];
    this.#save();
    byId("recent-heading").focus();
  }

  #unfinished() {
    return this.#jobs.filter((job) => !isFinal(job.status));
  }

  /** Listens to all jobs only as long as one of these, other than the one on the page, is unfinished. */
  #listen() {
    const wanted = this.#unfinished().some((job) => job.id !== this.#shown);
    if (wanted && !this.#unsubscribe) {
      this.#unsubscribe = this.#live.subscribe({ channel: "jobs" }, (message) => {
        if (message.type === "job") this.learn(message);
        else if (message.type === "subscribed") message.jobs.forEach((job) => this.learn(job));
        else if (message.type === "reset") this.#refresh();
      });
    } else if (!wanted && this.#unsubscribe) {
      this.#unsubscribe();
      this.#unsubscribe = null;
    }
  }

  async #refresh() {
    for (const job of this.#unfinished()) {
      try {
        this.learn({ ...(await readStatus(job.id, { ask: false })), id: job.id });
      } catch (error) {
        if (error instanceof RefusedError && error.status === 404) {
          this.#jobs = this.#jobs.filter((each) => each.id !== job.id);
          this.#save();
        } else break;
      }
    }
    this.#listen();
  }

  #show() {
    const kept = new Map();
    for (const job of this.#jobs) kept.set(job.id, this.#rows.get(job.id) ?? this.#row(job));
    this.#rows = kept;
    for (const job of this.#jobs) {
      const { link, status, age } = kept.get(job.id);
      if (job.id === this.#shown) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      status.dataset.status = job.status;
      setText(status, statusWord(job.status));
      setText(age, ago(job.created_at));
    }
    arrange(byId("recent-list"), Array.from(kept.values(), ({ item }) => item));
    byId("recent-empty").hidden = this.#jobs.length > 0;
    byId("recent-forget").hidden = this.#jobs.length === 0;
  }

  #row(job) {
    const link = element("a", { href: jobAddress(job.id) }, job.title);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      this.#open(job);
    });
    const status = element("span", { class: "status" });
    const age = element("span");
    return { link, status, age, item: element("li", {}, link, element("span", { class: "hint" }, status, " ", age)) };
  }
}
