// The rows of the list: each keeps its element while it is on the page, so that focus and pointer stay where they are.

import { jobAddress } from "./api.js";
import { arrange, element, oncePerFrame, setText } from "./dom.js";
import { ago, count, fullTime, oneLine, statusWord } from "./format.js";

const WORDS_MILLISECONDS = 30000;

function cell(name, ...children) {
  return element("td", { role: "cell", class: name }, ...children);
}

class Row {
  #link = element("a");
  #status = element("span", { class: "status" });
  #position = element("span", { class: "hint" });
  #model = cell("model");
  #priority = cell("priority");
  #created = element("time");
  #updated = element("time");

  constructor(job) {
    this.element = element(
      "tr",
      { role: "row" },
      cell("prompt", this.#link),
      cell("state", this.#status, this.#position),
      this.#model,
      this.#priority,
      cell("created", this.#created),
      cell("updated", this.#updated),
    );
    this.#link.href = jobAddress(job.id);
    this.job = {};
    this.update(job);
  }

  update(job) {
    const { status } = this.job;
    this.job = { ...this.job, position: undefined, ...job };
    const title = oneLine(this.job.prompt ?? "", 200);
    setText(this.#link, title || (this.job.contents_deleted_at ? "(deleted)" : "(no text)"));
    this.#status.dataset.status = this.job.status;
    setText(this.#status, statusWord(this.job.status));
    const { position } = this.job;
    setText(this.#position, this.job.status === "queued" && position !== undefined ? ` · ${count(position)}` : "");
    setText(this.#model, this.job.model ?? "");
    this.#priority.dataset.priority = this.job.priority ?? "";
    setText(this.#priority, this.job.priority ?? "");
    for (const [time, moment] of this.#times()) {
      time.dateTime = moment;
      time.title = fullTime(moment);
    }
    this.showAge();
    if (status !== undefined && status !== this.job.status) this.#flash();
  }

  showAge() {
    for (const [time, moment] of this.#times()) setText(time, ago(moment));
  }

  #times() {
    const { created_at: created, updated_at: updated } = this.job;
    return [[this.#created, created], [this.#updated, updated ?? created]];
  }

  #flash() {
    this.element.classList.remove("changed");
    requestAnimationFrame(() => this.element.classList.add("changed"));
  }
}

export class Rows {
  #body;
  #rows = new Map();
  #waiting = new Map();
  #apply = oncePerFrame(() => {
    for (const [id, job] of this.#waiting) this.#rows.get(id)?.update(job);
    this.#waiting.clear();
  });

  constructor(body) {
    this.#body = body;
    setInterval(() => this.#rows.forEach((row) => row.showAge()), WORDS_MILLISECONDS);
  }

  has(id) {
    return this.#rows.has(id);
  }

  /** Whether the reader is on a row, by pointer or keyboard: rows must not move then. */
  get isHeld() {
    return this.#body.matches(":hover") || this.#body.contains(document.activeElement);
  }

  /** Shows these jobs in this order. */
  show(jobs) {
    const kept = new Map();
    for (const job of jobs) {
      const row = this.#rows.get(job.id);
      row?.update(job);
      kept.set(job.id, row ?? new Row(job));
    }
    arrange(this.#body, Array.from(kept.values(), (row) => row.element));
    this.#rows = kept;
    this.#waiting.clear();
  }

  /** Whether any of them waits. */
  get hasQueued() {
    return Array.from(this.#rows.values()).some((row) => row.job.status === "queued");
  }

  /** Takes in the place of a job that still waits. */
  place(id, position) {
    const row = this.#rows.get(id);
    if (row?.job.status === "queued" && !this.#waiting.has(id)) row.update({ position });
  }

  /** Takes in a status change; rows that are not visible cost nothing. */
  change(job) {
    if (!this.#rows.has(job.id)) return;
    this.#waiting.set(job.id, job);
    this.#apply();
  }
}
