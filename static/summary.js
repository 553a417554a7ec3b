// What is said of a job beside its status: where it stands while it is under way, and where its time went.

import { count, duration, estimate, fullTime, isFinal, plural, rate, secondsBetween } from "./format.js";

/**
 * "Position 3 · starts in about 2 min", or what else there is to say of a job in this state. `hasOutput`: whether any of
 * its answer is there; `isHeld`: whether no backend answers.
 */
export function detailOf(job, { hasOutput, isHeld }) {
  const parts = [];
  if (job.status === "queued") {
    if (job.position !== undefined) parts.push(job.position <= 1 ? "Next in line" : `Position ${count(job.position)}`);
    if (isHeld) parts.push("held until a model server answers");
    else if (job.estimated_start_seconds !== undefined) parts.push(`starts in ${estimate(job.estimated_start_seconds)}`);
    // One that was never tried waits because it was asked for later.
    if (job.next_attempt_at) parts.push(`${job.attempt ? "tried again" : "starts"} at ${fullTime(job.next_attempt_at)}`);
  }
  // A model that has to be loaded first says nothing for a minute.
  if (job.status === "processing" && !hasOutput) parts.push("waiting for the first word");
  if (job.last_error && !isFinal(job.status)) parts.push(`interrupted: ${job.last_error.message}`);
  if (job.attempt > 1) parts.push(`attempt ${count(job.attempt)}`);
  if (job.model) parts.push(job.model);
  if (job.priority && job.priority !== "normal") parts.push(`${job.priority} priority`);
  return parts.join(" · ");
}

/** Where the time went: `timings` are seconds, those that the backend reported among them. */
export function factsOf({ created_at: created, started_at: started, finished_at: finished, completion_tokens: tokens, timings = {} }) {
  const facts = [];
  if (created && started) facts.push(`Waited ${duration(timings.queue_seconds ?? secondsBetween(created, started))}`);
  if (started && finished) facts.push(`took ${duration(secondsBetween(started, finished))}`);
  if (timings.load_seconds >= 1) facts.push(`of which loading ${duration(timings.load_seconds)}`);
  if (tokens) facts.push(plural(tokens, "token"));
  if (tokens && timings.generation_seconds) facts.push(`${rate(tokens / timings.generation_seconds)} tokens/s`);
  return facts.join(" · ");
}
