// Words for statuses, numbers and times, as the pages show them.

export const FINAL_STATUSES = new Set(["completed", "failed", "cancelled"]);

const STATUS_WORDS = {
  queued: "Queued",
  processing: "Writing",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

const numberFormat = new Intl.NumberFormat("en");
const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export function isFinal(status) {
  return FINAL_STATUSES.has(status);
}

export function statusWord(status) {
  return STATUS_WORDS[status] ?? status;
}

export function count(number) {
  return numberFormat.format(number);
}

/** "1 prompt", "2,000 prompts". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** So many a second: "0.4", "12.3", "1,000". */
export function rate(perSecond) {
  return perSecond < 99.95 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

/** A length of time in seconds: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min". */
export function duration(seconds) {
  if (seconds < 0.05) return "0 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return [`${Math.floor(whole / 60)} min`, whole % 60 ? `${whole % 60} s` : ""].join(" ").trim();
  const minutes = Math.round(whole / 60);
  return [`${Math.floor(minutes / 60)} h`, minutes % 60 ? `${minutes % 60} min` : ""].join(" ").trim();
}

/** An estimate in seconds, rounded so that it promises no more than it knows: "a few seconds", "about 3 min". */
export function estimate(seconds) {
  if (seconds < 8) return "a few seconds";
  if (seconds < 55) return `about ${Math.round(seconds / 5) * 5} s`;
  if (seconds < 3600) return `about ${Math.max(1, Math.round(seconds / 60))} min`;
  return `about ${Math.round(seconds / 1800) / 2} h`;
}

/** An RFC 3339 moment as people say it: "just now", "5 min ago", "3 h ago", then the date. */
export function ago(moment, now = Date.now()) {
  const seconds = (now - Date.parse(moment)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return dayFormat.format(Date.parse(moment));
}

/** An RFC 3339 moment in full, in the reader's own time zone. */
export function fullTime(moment) {
  const time = Date.parse(moment);
  return Number.isNaN(time) ? "" : dateFormat.format(time);
}

/** Seconds from one RFC 3339 moment to another (to now when `to` is missing), or undefined when unknown. */
export function secondsBetween(from, to) {
  const seconds = ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** One line of at most `length` characters: for titles, rows and links. */
export function oneLine(text, length = 200) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > length ? `${line.slice(0, length - 1).trimEnd()}…` : line;
}
