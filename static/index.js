// The prompt page: the form, the job that the address names, and the recent prompts.

import { jobAddress, readModels, readRequest, RefusedError, submitPrompt } from "./api.js";
import { showConnection } from "./connection.js";
import { byId, element } from "./dom.js";
import { JobView } from "./job.js";
import { Live } from "./live.js";
import { Recent } from "./recent.js";
import { browserMemory, tabMemory } from "./remembered.js";

const live = new Live();
const recent = new Recent(live, (job) => go(job.id, { prompt: job.prompt }));
const view = new JobView(live, { again: askAgain, edit: editAndAsk, changed: (job) => recent.learn(job) });
showConnection(byId("connection"), live);

const form = byId("prompt-form");
const promptField = byId("prompt-text");
const modelField = byId("model");
const priorityField = byId("priority");

function newKey() {
  // crypto.randomUUID exists on secure pages only.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function withPriority(priority = "normal") {
  return priority === "normal" ? {} : { priority };
}

// What was sent without an answer coming back: sent once more, it is the same job and not another.
let unanswered = null;

function showProblem(text) {
  byId("prompt-problem").textContent = text;
  byId("prompt-problem").hidden = !text;
}

/** Opens a job and gives it an address of its own, so that one can leave and come back. */
function go(id, details) {
  history.pushState({}, "", jobAddress(id));
  show(id, details);
  view.focus();
}

function show(id, details = {}) {
  if (id) view.open(id, { prompt: recent.find(id)?.prompt, ...details });
  else view.close();
  recent.mark(id);
}

const addressedJob = () => new URLSearchParams(location.search).get("job");

/** Submits what `ask` gives, one at a time, and opens the job under the words `prompt`; whether it was taken. */
async function send(prompt, ask) {
  const button = byId("send");
  if (button.disabled) return false;
  button.disabled = true;
  showProblem("");
  try {
    const asked = await ask();
    const { model = "", priority = "normal" } = asked;
    const text = JSON.stringify(asked);
    if (unanswered?.text !== text) unanswered = { text, key: newKey() };
    const job = await submitPrompt(asked, unanswered.key);
    unanswered = null;
    const known = { ...job, model, priority, created_at: new Date().toISOString() };
    recent.add({ id: job.id, prompt, model, priority, status: job.status, created_at: known.created_at });
    go(job.id, { known, prompt });
    return true;
  } catch (error) {
    if (error instanceof RefusedError) unanswered = null;
    showProblem(error.message);
    return false;
  } finally {
    button.disabled = false;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const prompt = promptField.value;
  if (!prompt.trim()) {
    showProblem("Write a prompt first.");
    promptField.focus();
    return;
  }
  const model = modelField.value.trim();
  if (!(await send(prompt, () => ({ prompt, ...(model ? { model } : {}), ...withPriority(priorityField.value) })))) return;
  browserMemory.write("model", model || undefined);
  promptField.value = "";
  tabMemory.write("draft", undefined);
});

promptField.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

promptField.addEventListener("input", () => {
  showProblem("");
  tabMemory.write("draft", promptField.value || undefined);
});

/** Asks all of it again: the prompt may be only the last words of it. */
async function askAgain(job, prompt) {
  const isSent = await send(prompt, async () => {
    const { stream, ...request } = await readRequest(job.id);
    return { ...request, ...withPriority(job.priority) };
  });
  if (!isSent) promptField.focus();
}

function editAndAsk(job, prompt) {
  promptField.value = prompt;
  modelField.value = job.model ?? "";
  priorityField.value = job.priority ?? "normal";
  tabMemory.write("draft", prompt);
  promptField.focus();
  form.scrollIntoView({ block: "nearest" });
}

async function offerModels() {
  const { names, preferred } = await readModels();
  if (names.length > 0) byId("models").replaceChildren(...names.map((name) => element("option", { value: name })));
  if (preferred) modelField.placeholder = preferred;
}

addEventListener("popstate", () => show(addressedJob()));

promptField.value = tabMemory.read("draft", "");
modelField.value = browserMemory.read("model", "");
show(addressedJob());
if (!addressedJob()) promptField.focus();
offerModels();
modelField.addEventListener("focus", offerModels);
