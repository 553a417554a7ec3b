// The REST API. Paths are relative to the page's folder, so that a proxy may serve Corral below any path.

import { askForKey, currentKey } from "./key.js";

/** The service answered with an error: `status` is HTTP's, the message is the service's own. */
export class RefusedError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No answer: the service is away, or the network is. */
export class UnreachableError extends Error {}

/** The absolute URL of a path of the service. */
export function serviceUrl(path) {
  return new URL(path, document.baseURI);
}

/** The address of the page that shows a job. */
export function jobAddress(id) {
  return `./?job=${encodeURIComponent(id)}`;
}

/**
 * One call. Options: `body` (sent as JSON), `query` (empty values are left out), `headers`, `signal`, and `ask`: whether
 * a 401 may interrupt the user with a question for a key (background calls may not).
 */
async function call(method, path, { body, query = {}, headers = {}, signal, ask = true } = {}) {
  const url = serviceUrl(path);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  for (;;) {
    const key = currentKey();
    const response = await reach(url, {
      method,
      signal,
      cache: "no-store",
      headers: {
        ...headers,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.status === 401 && ask && (currentKey() !== key || (await askForKey()))) continue;
    return answerOf(response);
  }
}

let isAway = false;
const returnWatchers = new Set();

/** Calls `action` when a call gets an answer after one that did not: the service is back. */
export function whenServiceReturns(action) {
  returnWatchers.add(action);
}

async function reach(url, request) {
  try {
    const response = await fetch(url, request);
    if (isAway) for (const action of returnWatchers) action();
    isAway = false;
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    isAway = true;
    throw new UnreachableError("The service cannot be reached.");
  }
}

async function answerOf(response) {
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new UnreachableError("The answer of the service broke off.");
  }
  if (response.ok) return answer;
  const message = typeof answer?.error === "string" ? answer.error : answer?.detail;
  throw new RefusedError(response.status, message ?? `The service answered ${response.status}.`);
}

const jobPath = (id) => `api/v1/prompt/${encodeURIComponent(id)}`;

/** Stores a prompt: `{prompt, model?, priority?, …}` → `{id, status, position}`. The same `idempotencyKey` never stores two. */
export function submitPrompt(prompt, idempotencyKey) {
  return call("POST", "api/v1/prompt", { body: prompt, headers: { "Idempotency-Key": idempotencyKey } });
}

/** A job's status; with `waitSeconds` the answer comes when it is no longer `known`, or when the time is up. */
export function readStatus(id, { waitSeconds, known, ...options } = {}) {
  return call("GET", `${jobPath(id)}/status`, { query: { wait: waitSeconds, status: known }, ...options });
}

/** A job's result: text, thinking, tool calls, counts, or its error. */
export function readResult(id, options) {
  return call("GET", `${jobPath(id)}/result`, options);
}

/** What Ollama was asked for a job: the body of the call. */
export function readRequest(id) {
  return call("GET", `${jobPath(id)}/request`);
}

/** Cancels a job, or finds it finished; answers with its status. */
export function cancelJob(id) {
  return call("DELETE", jobPath(id));
}

/** One page of all prompts, newest first. `filter`: page, page_size, status, model, q. */
export function readPrompts(filter, options) {
  return call("GET", "api/v1/prompts", { query: filter, ...options });
}

/** The models that the backends have, or an empty list where the service cannot say. */
export async function readModels() {
  try {
    const answer = await call("GET", "api/models", { ask: false });
    return { names: (answer.models ?? []).map((model) => model.name), preferred: answer.default };
  } catch {
    return { names: [] };
  }
}

/** Whether a backend answers, as far as the service can be asked. */
export async function isAnyBackendAnswering() {
  try {
    const { reason } = await call("GET", "health", { ask: false });
    return reason !== "no_backend";
  } catch {
    return true;
  }
}

/** Trades the tab's key for a short-lived token, or answers undefined when there is no key to trade. */
export async function readToken() {
  if (currentKey() === undefined) return undefined;
  const answer = await call("POST", "api/token", { ask: false });
  return answer.access_token ?? answer.token;
}
