// The list of all prompts: one page of it, filtered, kept current by the websocket and read again when its order changes.

import { readModels, readPrompts } from "./api.js";
import { showConnection } from "./connection.js";
import { byId, element, setText } from "./dom.js";
import { count, fullTime, plural } from "./format.js";
import { Live } from "./live.js";
import { Rows } from "./rows.js";

const TYPING_MILLISECONDS = 250;
// Jobs may come by the hundred a second: the page is read again at once, then at most this often.
const READ_AGAIN_MILLISECONDS = 500;
const PLACES_MILLISECONDS = 2000;
const POLL_MILLISECONDS = 5000;
const SIZES = [25, 50, 100];

const live = new Live();
const rows = new Rows(byId("rows"));
const fields = { q: byId("text"), status: byId("status"), model: byId("model") };

let filter = readAddress();
let pageCount = 1;
let reading = null;
let readAgainTimer = null;
let placesTimer = null;
let lastRead = 0;
let isHeldBack = false;

function readAddress() {
  const given = new URLSearchParams(location.search);
  const size = Number(given.get("page_size"));
  return {
    page: Math.max(1, Math.floor(Number(given.get("page"))) || 1),
    page_size: SIZES.includes(size) ? size : SIZES[0],
    status: given.get("status") ?? "",
    model: given.get("model") ?? "",
    q: given.get("q") ?? "",
  };
}

function writeAddress(replace) {
  const address = new URL(location.href);
  address.search = "";
  const usual = { page: 1, page_size: SIZES[0] };
  for (const [name, value] of Object.entries(filter)) {
    if (value && value !== usual[name]) address.searchParams.set(name, value);
  }
  if (address.href === location.href) return;
  history[replace ? "replaceState" : "pushState"]({}, "", address);
}

function showFilter() {
  for (const [name, field] of Object.entries(fields)) field.value = filter[name];
  byId("page-size").value = String(filter.page_size);
}

/** Changes what is shown; typing replaces the address, turning a page adds to the history. */
function choose(change, { replace = false } = {}) {
  filter = { ...filter, page: 1, ...change };
  writeAddress(replace);
  read();
}

async function read({ ask = true } = {}) {
  clearTimeout(readAgainTimer);
  readAgainTimer = null;
  isHeldBack = false;
  byId("newer").hidden = true;
  reading?.abort();
  const mine = new AbortController();
  reading = mine;
  lastRead = performance.now();
  try {
    const answer = await readPrompts(filter, { signal: mine.signal, ask });
    if (reading !== mine) return;
    if (answer.prompts.length === 0 && answer.total_pages > 0 && filter.page > answer.total_pages) {
      choose({ page: answer.total_pages }, { replace: true });
      return;
    }
    show(answer);
    // Only what the reader asked for is said aloud: a busy queue changes its total all the time.
    if (ask) setText(byId("announcement"), `${byId("total").textContent}, page ${filter.page} of ${pageCount}`);
  } catch (error) {
    if (error.name === "AbortError" || reading !== mine) return;
    showProblem(live.state === "lost" ? "" : error.message);
  } finally {
    if (reading === mine) reading = null;
  }
}

function showProblem(text) {
  setText(byId("problem"), text);
  byId("problem").hidden = !text;
}

function show({ prompts, total, total_pages: pages, total_is_capped: capped, searched_until: until }) {
  showProblem("");
  rows.show(prompts);
  pageCount = Math.max(1, pages);
  document.querySelector(".jobs").hidden = prompts.length === 0;
  const filtered = Boolean(filter.q || filter.status || filter.model);
  byId("nothing").hidden = prompts.length > 0;
  byId("nothing").textContent = !filtered
    ? "No prompts yet."
    : until
      ? `No prompt since ${fullTime(until)} fits this filter; the search went no further back.`
      : "No prompt fits this filter.";
  setText(byId("total"), `${capped ? "At least " : ""}${plural(total, "prompt")}`);
  byId("pager").hidden = total <= SIZES[0];
  if (document.activeElement !== byId("page")) byId("page").value = String(filter.page);
  byId("page").max = String(pageCount);
  byId("page-count").textContent = count(pageCount);
  for (const name of ["first", "previous"]) byId(name).disabled = filter.page <= 1;
  for (const name of ["next", "last"]) byId(name).disabled = filter.page >= pageCount;
  offerModels(prompts.map((job) => job.model));
}

const offeredModels = new Set();

function offerModels(names) {
  for (const name of names) {
    if (!name || offeredModels.has(name)) continue;
    offeredModels.add(name);
    byId("models").append(element("option", { value: name }));
  }
}

/** The order may have changed: reads the page again soon, unless rows would move under the reader's hand. */
function readAgain() {
  if (readAgainTimer !== null) return;
  const wait = Math.max(0, lastRead + READ_AGAIN_MILLISECONDS - performance.now());
  readAgainTimer = setTimeout(() => {
    readAgainTimer = null;
    if (rows.isHeld) holdBack();
    else read({ ask: false });
  }, wait);
}

/** One job less in the queue is a place less for those behind it, of which no message tells: reads their places soon. */
function readPlaces() {
  placesTimer ??= setTimeout(async () => {
    placesTimer = null;
    // What has changed meanwhile is known already, and better: only places are taken from this answer.
    const { prompts } = await readPrompts(filter, { ask: false }).catch(() => ({ prompts: [] }));
    for (const { id, position } of prompts) rows.place(id, position);
  }, PLACES_MILLISECONDS);
}

function holdBack() {
  isHeldBack = true;
  byId("newer").hidden = false;
  byId("newer").textContent = filter.page === 1 ? "The list has changed: show it now" : "New prompts: go to the first page";
}

function letGo() {
  if (isHeldBack && filter.page === 1 && !rows.isHeld) read({ ask: false });
}

function receive(message) {
  if (message.type === "subscribed") message.jobs.forEach((job) => isNew(job.id));
  // What happened before the snapshot, or while the connection was lost, is only in the list itself.
  if (message.type === "subscribed" || message.type === "reset") readAgain();
  if (message.type !== "job") return;
  rows.change(message);
  if (message.status !== "queued" && rows.hasQueued) readPlaces();
  if (!movesRows(message)) return;
  if (filter.page === 1 || filter.status) readAgain();
  else if (!isHeldBack) holdBack();
}

/** Whether a change of this job adds a row or takes one away; a new position in the queue does neither. */
function movesRows({ id, status }) {
  if (isNew(id)) return true;
  if (rows.has(id)) return filter.status !== "" && status !== filter.status;
  return filter.status === status && status !== "queued";
}

let newestId = "";

/** Ids rise with time: one above all that were seen is a new job. */
function isNew(id) {
  if (id <= newestId) return false;
  newestId = id;
  return true;
}

let typing = null;
byId("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(applyFilter, TYPING_MILLISECONDS);
});
byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  applyFilter();
});

function applyFilter() {
  clearTimeout(typing);
  choose({ q: fields.q.value.trim(), status: fields.status.value, model: fields.model.value.trim() }, { replace: true });
}

function turnTo(page) {
  choose({ page: Math.min(pageCount, Math.max(1, page)) });
  scrollTo({ top: 0 });
}

byId("first").addEventListener("click", () => turnTo(1));
byId("previous").addEventListener("click", () => turnTo(filter.page - 1));
byId("next").addEventListener("click", () => turnTo(filter.page + 1));
byId("last").addEventListener("click", () => turnTo(pageCount));
byId("page").addEventListener("change", (event) => turnTo(Math.floor(Number(event.target.value)) || 1));
byId("page-size").addEventListener("change", (event) => choose({ page_size: Number(event.target.value) }));
byId("newer").addEventListener("click", () => choose({ page: 1 }));
byId("rows").addEventListener("pointerleave", letGo);
byId("rows").addEventListener("focusout", () => setTimeout(letGo));
addEventListener("popstate", () => {
  filter = readAddress();
  showFilter();
  read();
});

showFilter();
await read();
live.subscribe({ channel: "jobs" }, receive);
showConnection(byId("connection"), live);
setInterval(() => live.state === "lost" && !rows.isHeld && read({ ask: false }), POLL_MILLISECONDS);
fields.model.addEventListener("focus", async () => offerModels((await readModels()).names), { once: true });
