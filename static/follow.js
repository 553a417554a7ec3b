// Following one job from wherever it is to its end: by websocket while there is one, by polling while there is none.

import { readResult, readStatus, RefusedError } from "./api.js";
import { isFinal } from "./format.js";

const POLL_WAIT_SECONDS = 25;
const POLL_PAUSE_MILLISECONDS = 1000;
const LONGEST_PAUSE_MILLISECONDS = 10000;
// So long without a word from an open websocket, ask by REST: a laptop that slept keeps a socket that is dead.
const SILENCE_MILLISECONDS = 30000;

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/**
 * Reports to `view`: `showJob(job)` for each status, `showOutput(kind, data)`, `restart(attempt)` (throw away what was
 * shown), `finish(result)` once, and `refuse(error)` when the job cannot be followed (unknown, not allowed).
 */
export class JobFollower {
  #live;
  #view;
  #position;
  #attempt = 0;
  #job = { status: undefined };
  #ended = new AbortController();
  #polling = null;
  #silence = null;
  #unsubscribe = null;

  constructor(id, live, view) {
    this.id = id;
    this.#live = live;
    this.#view = view;
  }

  /** Begins; `job` is what is known already (from submitting it). */
  async start(job) {
    try {
      this.#learn(job ?? (await readStatus(this.id, { signal: this.#ended.signal })));
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      if (error instanceof RefusedError && error.status < 500) {
        this.#view.refuse(error);
        return;
      }
      this.#poll();
    }
    if (this.#ended.signal.aborted) return;
    // What a failed or cancelled job had written is not in its result: that is read like a running one's.
    if (this.#job.status === "completed" || this.#job.contents_deleted_at) {
      this.#collect();
      return;
    }
    this.#unsubscribe = this.#live.subscribe(
      { channel: "job", id: this.id, from: () => this.#position },
      (message) => this.#receive(message),
    );
    this.connectionChanged(this.#live.state);
    this.#listenForSilence();
  }

  /** Ends the following, not the job. */
  stop() {
    this.#ended.abort();
    this.#unsubscribe?.();
    this.#polling?.abort();
    clearTimeout(this.#silence);
  }

  /** To be told of the websocket's states: polls while it is lost. */
  connectionChanged(state) {
    if (this.#ended.signal.aborted || !this.#unsubscribe) return;
    if (state === "lost") this.#poll();
    if (state === "open") {
      this.#polling?.abort();
      this.#polling = null;
    }
  }

  /** Takes in a status that came another way (the answer to a cancel). */
  learn(job) {
    this.#learn(job);
    if (isFinal(this.#job.status)) this.#collect();
  }

  #learn(job) {
    if (this.#ended.signal.aborted) return;
    // An older word that arrives late (a poll that was under way) must not undo a newer one.
    if (isFinal(this.#job.status) && !isFinal(job.status)) return;
    this.#job = { ...this.#job, position: undefined, estimated_start_seconds: undefined, ...job };
    this.#view.showJob(this.#job);
  }

  #receive(message) {
    this.#listenForSilence();
    if (message.type === "subscribed") this.#learn(message.job);
    else if (message.type === "job") this.#learn(message);
    else if (message.type === "output") this.#write(message);
    else if (message.type === "restart") this.#restart(message.attempt);
    else if (message.type === "done") this.learn({ status: message.status, error: message.error });
  }

  #write({ attempt, kind, data, position }) {
    if (attempt < this.#attempt) return;
    if (attempt > this.#attempt) {
      if (this.#attempt > 0) this.#restart(attempt);
      this.#attempt = attempt;
    }
    this.#position = position;
    this.#view.showOutput(kind, data);
  }

  #restart(attempt) {
    this.#attempt = attempt;
    this.#position = undefined;
    this.#view.restart(attempt);
  }

  #listenForSilence() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(async () => {
      const known = this.#job.status;
      const job = await readStatus(this.id, { ask: false, signal: this.#ended.signal }).catch(() => null);
      if (this.#ended.signal.aborted) return;
      this.#listenForSilence();
      if (job && job.status !== known && this.#job.status === known) this.#live.reconnect();
    }, SILENCE_MILLISECONDS);
  }

  async #poll() {
    if (this.#polling) return;
    const polling = new AbortController();
    this.#polling = polling;
    let failures = 0;
    while (!polling.signal.aborted && !isFinal(this.#job.status)) {
      try {
        const wait = { waitSeconds: POLL_WAIT_SECONDS, known: this.#job.status };
        this.#learn(await readStatus(this.id, { ...wait, ask: false, signal: polling.signal }));
        failures = 0;
      } catch {
        failures += 1;
      }
      const ceiling = Math.min(LONGEST_PAUSE_MILLISECONDS, POLL_PAUSE_MILLISECONDS * 2 ** failures);
      if (!isFinal(this.#job.status)) await pause(ceiling, polling.signal);
    }
    if (!polling.signal.aborted) this.#collect();
  }

  /** The job is final: reads its result, as often as it takes, and ends. */
  async #collect() {
    if (this.#ended.signal.aborted) return;
    this.stop();
    for (let failures = 0; ; failures += 1) {
      try {
        this.#view.finish(await readResult(this.id));
        return;
      } catch (error) {
        if (error instanceof RefusedError && error.status < 500) {
          this.#view.refuse(error);
          return;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_PAUSE_MILLISECONDS, 500 * 2 ** failures)));
    }
  }
}
