// One job on the page: its prompt, its state, its answer as it is written, and what can be done with it.

import { Answer } from "./answer.js";
import { cancelJob, jobAddress } from "./api.js";
import { copyOnClick } from "./clipboard.js";
import { byId, setText } from "./dom.js";
import { JobFollower } from "./follow.js";
import { count, duration, isFinal, oneLine, secondsBetween, statusWord } from "./format.js";
import { Outage } from "./outage.js";
import { detailOf, factsOf } from "./summary.js";
import { Tail } from "./tail.js";

const LONG_PROMPT_CHARACTERS = 280;
// Where a prompt that is submitted goes: what was asked there can be submitted once more.
const ASKABLE = new Set(["/api/generate", "/api/chat"]);

function announce(text) {
  setText(byId("announcement"), text);
}

export class JobView {
  #live;
  #actions;
  #follower = null;
  #job = {};
  #prompt = "";
  #isPromptWhole = false;
  #isAskable = false;
  #isEditable = false;
  #thinkingTouched = false;
  #outage = new Outage(() => this.#showDetail());
  #tail = new Tail(byId("answer"));
  #answer = new Answer(byId("answer"), () => this.#tail.keep());
  #thinking = new Answer(byId("thinking-text"), () => this.#tail.keep());
  #toolCalls = new Answer(byId("tool-calls-text"), () => this.#tail.keep());

  /** `actions`: `again(job, prompt)`, `edit(job, prompt)` and `changed(job)`. */
  constructor(live, actions) {
    this.#live = live;
    this.#actions = actions;
    live.watchState((state) => this.#follower?.connectionChanged(state));
    setInterval(() => this.#showClock(), 1000);
    byId("cancel").addEventListener("click", () => this.#cancel());
    byId("again").addEventListener("click", () => actions.again(this.#job, this.#prompt));
    byId("edit").addEventListener("click", () => actions.edit(this.#job, this.#prompt));
    byId("job-whole-prompt").addEventListener("click", () => this.#togglePrompt());
    byId("thinking-summary").addEventListener("click", () => {
      this.#thinkingTouched = true;
    });
    byId("plain").addEventListener("click", (event) => {
      const plain = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", String(plain));
      this.#answer.setFormatted(!plain);
    });
    copyOnClick(byId("copy"), () => this.#answer.text, announce);
    copyOnClick(byId("copy-link"), () => new URL(jobAddress(this.#follower.id), document.baseURI).href, announce);
  }

  /** Shows a job and follows it. `known`: its status, if just submitted; `prompt`: its text, if this browser has it. */
  open(id, { known, prompt } = {}) {
    this.close();
    this.#setPrompt(prompt ?? "");
    this.#isPromptWhole = this.#isAskable = prompt !== undefined;
    this.#isEditable = false;
    byId("job").hidden = false;
    document.body.classList.add("has-job");
    this.#follower = new JobFollower(id, this.#live, this);
    this.#follower.start(known);
  }

  close() {
    this.#follower?.stop();
    this.#follower = null;
    this.#job = {};
    this.#thinkingTouched = false;
    this.#clear();
    this.#outage.watch(false);
    this.#tail.stop();
    announce("");
    for (const name of ["job", "job-problem", "job-facts", "copy", "cancel", "again", "edit", "plain"]) byId(name).hidden = true;
    for (const name of ["job-status", "job-detail", "job-clock"]) setText(byId(name), "");
    document.body.classList.remove("has-job");
    document.title = "Corral";
  }

  focus() {
    byId("job-heading").focus({ preventScroll: true });
    byId("job").scrollIntoView({ block: "nearest" });
  }

  // What the follower reports.

  showJob(job) {
    const changed = job.status !== this.#job.status;
    this.#job = job;
    if (!this.#isPromptWhole && job.prompt && job.prompt !== this.#prompt) this.#setPrompt(job.prompt);
    const status = byId("job-status");
    status.dataset.status = job.status;
    setText(status, statusWord(job.status));
    this.#showDetail();
    this.#showClock();
    if (changed) this.#changeStatus();
    this.#actions.changed(job);
  }

  showOutput(kind, data) {
    byId("job").classList.remove("interrupted");
    if (kind === "thinking") this.#showThinking(data);
    else if (kind === "tool_calls") this.#showToolCalls(`${data}\n`);
    else {
      if (this.#answer.isEmpty) this.#foldThinking();
      this.#answer.append(data);
    }
    byId("copy").hidden = this.#answer.isEmpty;
    this.#showDetail();
  }

  restart(attempt) {
    this.#clear();
    announce(`The answer is written anew, attempt ${attempt}.`);
  }

  finish(result) {
    this.#isAskable ||= ASKABLE.has(result.endpoint);
    // Of a chat the prompt is only a part: edited it would be another question.
    this.#isEditable = result.endpoint === "/api/generate";
    this.showJob({ ...this.#job, ...result });
    this.#showAgain();
    if (result.thinking && this.#thinking.text !== result.thinking) {
      this.#thinking.clear();
      this.#showThinking(result.thinking);
    }
    if (result.result && !result.error) this.#answer.replace(result.result);
    if (result.tool_calls?.length && this.#toolCalls.isEmpty) this.#showToolCalls(JSON.stringify(result.tool_calls, null, 2));
    this.#foldThinking();
    setText(byId("thinking-summary"), "Thinking");
    const facts = factsOf(this.#job);
    setText(byId("job-facts"), facts);
    byId("job-facts").hidden = !facts;
    byId("copy").hidden = this.#answer.isEmpty;
    byId("plain").hidden = this.#answer.isEmpty;
  }

  refuse(error) {
    const missing = error.status === 404;
    const deleted = error.status === 410;
    const said = missing ? "There is no such prompt. It may have been removed after its time." : error.message;
    this.#showProblem(deleted ? "What was asked and answered here was deleted." : said);
    if (!this.#prompt) setText(byId("job-heading"), missing ? "Not found" : deleted ? "Deleted" : "Not available");
    announce(byId("job-problem").textContent);
  }

  // What is shown.

  #changeStatus() {
    const { status, error } = this.#job;
    const final = isFinal(status);
    const cancelHadFocus = document.activeElement === byId("cancel");
    byId("answer").setAttribute("aria-busy", String(status === "processing"));
    byId("job").classList.toggle("writing", status === "processing");
    byId("job").classList.toggle("interrupted", status === "queued" && !this.#answer.isEmpty);
    byId("cancel").hidden = final;
    this.#showCancelling(false);
    this.#showAgain();
    this.#tail.setGrowing(!final);
    this.#outage.watch(status === "queued");
    this.#showProblem(status === "failed" ? (error?.message ?? "The job failed.") : "");
    announce(this.#announcement());
    this.#showTitle();
    if (final && cancelHadFocus) byId("job-heading").focus({ preventScroll: true });
  }

  #announcement() {
    const { status, position } = this.#job;
    if (status === "queued") return position > 1 ? `Queued, position ${count(position)}.` : "Queued.";
    if (status === "processing") return "The answer is being written.";
    if (status === "completed") return "The answer is complete.";
    if (status === "failed") return `Failed. ${byId("job-problem").textContent}`;
    return "Cancelled.";
  }

  #showTitle() {
    const mark = { queued: "…", processing: "✎", completed: "✓", failed: "✕", cancelled: "–" }[this.#job.status] ?? "";
    document.title = `${mark} ${oneLine(this.#prompt, 60) || "Prompt"} – Corral`;
  }

  #showDetail() {
    const hasOutput = !(this.#answer.isEmpty && this.#thinking.isEmpty && this.#toolCalls.isEmpty);
    setText(byId("job-detail"), detailOf(this.#job, { hasOutput, isHeld: this.#outage.isSeen }));
  }

  #showClock() {
    const { status, created_at: created, started_at: started } = this.#job;
    const since = status === "processing" ? started : status === "queued" ? created : undefined;
    const seconds = since === undefined ? undefined : secondsBetween(since);
    setText(byId("job-clock"), seconds === undefined ? "" : duration(Math.floor(seconds)).replace(".0", ""));
  }

  #setPrompt(prompt) {
    this.#prompt = prompt;
    const heading = byId("job-heading");
    setText(heading, prompt || "Prompt");
    const long = prompt.length > LONG_PROMPT_CHARACTERS || prompt.split("\n").length > 4;
    heading.classList.toggle("folded", long);
    byId("job-whole-prompt").hidden = !long;
    byId("job-whole-prompt").setAttribute("aria-expanded", "false");
    setText(byId("job-whole-prompt"), "Show the whole prompt");
    if (this.#job.status) this.#showTitle();
  }

  #togglePrompt() {
    const folded = byId("job-heading").classList.toggle("folded");
    byId("job-whole-prompt").setAttribute("aria-expanded", String(!folded));
    setText(byId("job-whole-prompt"), folded ? "Show the whole prompt" : "Show less");
  }

  #showAgain() {
    byId("again").hidden = !this.#isAskable || !isFinal(this.#job.status);
    byId("edit").hidden = !this.#isEditable || !isFinal(this.#job.status);
  }

  #showThinking(data) {
    const details = byId("thinking");
    details.hidden = false;
    if (!this.#thinkingTouched && this.#answer.isEmpty && !isFinal(this.#job.status)) details.open = true;
    setText(byId("thinking-summary"), this.#answer.isEmpty && !isFinal(this.#job.status) ? "Thinking…" : "Thinking");
    this.#thinking.append(data);
  }

  #foldThinking() {
    setText(byId("thinking-summary"), "Thinking");
    if (!this.#thinkingTouched) byId("thinking").open = false;
  }

  #showToolCalls(text) {
    byId("tool-calls").hidden = false;
    this.#toolCalls.append(text);
  }

  #showProblem(text) {
    setText(byId("job-problem"), text);
    byId("job-problem").hidden = !text;
  }

  #clear() {
    for (const answer of [this.#answer, this.#thinking, this.#toolCalls]) answer.clear();
    for (const name of ["thinking", "tool-calls"]) byId(name).hidden = true;
    byId("job").classList.remove("interrupted", "writing");
    byId("copy").hidden = true;
  }

  /** Not by `disabled`, which would throw the keyboard's focus away. */
  #showCancelling(cancelling) {
    byId("cancel").setAttribute("aria-disabled", String(cancelling));
    setText(byId("cancel"), cancelling ? "Cancelling…" : "Cancel");
  }

  async #cancel() {
    const follower = this.#follower;
    if (byId("cancel").getAttribute("aria-disabled") === "true") return;
    this.#showCancelling(true);
    try {
      const job = await cancelJob(follower.id);
      if (follower === this.#follower) follower.learn(job);
    } catch (error) {
      if (follower !== this.#follower) return;
      this.#showCancelling(false);
      this.#showProblem(error.message);
    }
  }
}
