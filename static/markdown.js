// The little Markdown that models write, as elements: headings, lists, tables, quotes, rules, emphasis, code, links.
// What it does not know stays the text it was. Fenced code is answer.js's, since it decides where blocks end.

import { element } from "./dom.js";

const HEADING = /^ {0,3}(#{1,6})\s+(.+?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/;
const ITEM = /^(\s{0,16})([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_ROW = /^\s*\|.*\|\s*$/;
const TABLE_RULE = /^\s*\|(?:\s*:?-+:?\s*\|)+\s*$/;
// Quotes within quotes; each costs the browser boxes within boxes, and us a call within a call.
const DEEPEST_QUOTE = 20;
// Lengths are bounded: a line of a thousand unclosed asterisks must not cost a thousand scans of the whole line.
const INLINE = new RegExp(
  [
    "`(?<code>[^`\\n]{1,500})`",
    "\\*\\*(?<strong>[^\\s*](?:[^\\n]{0,500}?[^\\s])??)\\*\\*",
    "(?<![\\w*])\\*(?<emphasis>[^\\s*](?:[^*\\n]{0,500}?[^\\s*])??)\\*(?![\\w*])",
    "(?<![\\w_])_(?<underlined>[^\\s_](?:[^_\\n]{0,500}?[^\\s_])??)_(?![\\w_])",
    "\\[(?<label>[^\\]\\n]{1,300})\\]\\((?<target>https?:\\/\\/[^\\s()]{1,2000})\\)",
    "(?<address>https?:\\/\\/[^\\s<>()\"'`]{1,2000}[^\\s<>()\"'`.,;:!?])",
  ].join("|"),
  "g",
);

function link(target, ...children) {
  return element("a", { href: target, rel: "noopener noreferrer nofollow", target: "_blank" }, ...children);
}

/** Text with emphasis, code and links, as nodes. */
export function inlineNodes(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const { code, strong, emphasis, underlined, label, target, address } = match.groups;
    if (match.index > end) nodes.push(text.slice(end, match.index));
    end = match.index + match[0].length;
    if (code !== undefined) nodes.push(element("code", {}, code));
    else if (strong !== undefined) nodes.push(element("strong", {}, ...inlineNodes(strong)));
    else if (label !== undefined) nodes.push(link(target, label));
    else if (address !== undefined) nodes.push(link(address, address));
    else nodes.push(element("em", {}, ...inlineNodes(emphasis ?? underlined)));
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function heading(match) {
  // The page's own headings are of the first and second level.
  return element(`h${Math.min(6, match[1].length + 2)}`, {}, ...inlineNodes(match[2]));
}

function takeWhile(lines, start, pattern) {
  let end = start;
  while (end < lines.length && pattern.test(lines[end])) end += 1;
  return lines.slice(start, end);
}

function table(rows) {
  const cells = (row) => row.trim().slice(1, -1).split("|").map((cell) => inlineNodes(cell.trim()));
  const row = (line, name) => element("tr", {}, ...cells(line).map((nodes) => element(name, {}, ...nodes)));
  const body = rows.slice(2).map((line) => row(line, "td"));
  const built = element("table", {}, element("thead", {}, row(rows[0], "th")), element("tbody", {}, ...body));
  return element("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Table" }, built);
}

/** The list that begins at `lines[start]`, with what is indented under it, and the number of lines it took. */
function list(lines, start) {
  const first = ITEM.exec(lines[start]);
  const ordered = /\d/.test(first[2]);
  const built = element(ordered ? "ol" : "ul", ordered ? { start: String(parseInt(first[2], 10)) } : {});
  const indent = first[1].length;
  let at = start;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (match && match[1].length > indent + 1 && built.lastChild) {
      const [inner, taken] = list(lines, at);
      built.lastChild.append(inner);
      at += taken;
    } else if (match && match[1].length + 1 >= indent && /\d/.test(match[2]) === ordered) {
      built.append(element("li", {}, ...inlineNodes(match[3])));
      at += 1;
    } else if (!match && /^\s+\S/.test(lines[at])) {
      built.lastChild.append("\n", ...inlineNodes(lines[at].trim()));
      at += 1;
    } else break;
  }
  return [built, at - start];
}

const startsBlock = (line) => HEADING.test(line) || RULE.test(line) || ITEM.test(line) || QUOTE.test(line);

/** A block of text without blank lines or fences, as nodes. It stands within so many quotes. */
export function blockNodes(text, depth = 0) {
  const lines = text.replace(/\n+$/, "").split("\n");
  const nodes = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const headingMatch = HEADING.exec(line);
    let taken = 1;
    if (headingMatch) nodes.push(heading(headingMatch));
    else if (RULE.test(line)) nodes.push(element("hr"));
    else if (QUOTE.test(line) && depth < DEEPEST_QUOTE) {
      const quoted = takeWhile(lines, at, QUOTE);
      nodes.push(element("blockquote", {}, ...blockNodes(quoted.map((each) => QUOTE.exec(each)[1]).join("\n"), depth + 1)));
      taken = quoted.length;
    } else if (ITEM.test(line)) {
      const [built, lineCount] = list(lines, at);
      nodes.push(built);
      taken = lineCount;
    } else if (TABLE_ROW.test(line) && TABLE_RULE.test(lines[at + 1] ?? "")) {
      const rows = takeWhile(lines, at, TABLE_ROW);
      nodes.push(table(rows));
      taken = rows.length;
    } else {
      while (at + taken < lines.length && !startsBlock(lines[at + taken]) && !TABLE_ROW.test(lines[at + taken])) taken += 1;
      nodes.push(element("p", {}, ...inlineNodes(lines.slice(at, at + taken).join("\n"))));
    }
    at += taken;
  }
  return nodes;
}
