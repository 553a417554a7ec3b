// An answer that grows token by token. However long it is, a frame costs only its last block: finished blocks are never
// touched again, and the browser need not lay out those that are out of sight.

import { element, oncePerFrame } from "./dom.js";
import { blockNodes } from "./markdown.js";

const BLOCK_CHARACTERS = 4000;
// Blocks are skipped by the chapter: for the browser, each thing it may skip is a thing to look at in every frame.
const CHAPTER_CHARACTERS = 8000;
const UNBROKEN_LINE_CHARACTERS = 16000;
const FRAME_CHARACTERS = 60000;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`\n]*)$/;
const PERHAPS_A_FENCE = /^ {0,3}(?:`{1,2}|`{3,}[^`\n]*|~{1,2}|~{3,}[^\n]*|)$/;

/** Text written into `container`, formatted (`formatted`: Markdown) or as it came. `grown` is called after each frame. */
export class Answer {
  #container;
  #grown;
  #text = [];
  #waiting = "";
  #schedule = oncePerFrame(() => this.#frame());
  #formatted = true;
  // The open block: its element, what is in it, and (inside fenced code) the fence that will close it.
  #block = null;
  #blockText = "";
  #fence = null;
  #code = null;
  #line = "";
  #chapter = null;
  #chapterCharacters = 0;
  // What this frame and the one before it finished.
  #finished = [];
  #laidOut = [];

  constructor(container, grown) {
    this.#container = container;
    this.#grown = grown;
  }

  /** All that was written, as it came. */
  get text() {
    if (this.#text.length > 1) this.#text = [this.#text.join("")];
    return this.#text[0] ?? "";
  }

  get isEmpty() {
    return this.#text.length === 0;
  }

  append(data) {
    if (!data) return;
    this.#text.push(data);
    this.#waiting += data;
    this.#schedule();
  }

  clear() {
    this.#text = [];
    this.#begin("");
  }

  /** Shows `text` instead of what was shown, unless it is the same. */
  replace(text) {
    if (this.text === text) return;
    this.#text = text ? [text] : [];
    this.#begin(text);
  }

  setFormatted(formatted) {
    if (this.#formatted === formatted) return;
    this.#formatted = formatted;
    this.#begin(this.text);
  }

  #begin(text) {
    this.#waiting = text;
    this.#block = null;
    this.#blockText = "";
    this.#fence = null;
    this.#code = null;
    this.#line = "";
    this.#chapter = null;
    this.#finished = [];
    this.#laidOut = [];
    this.#container.replaceChildren();
    this.#schedule();
  }

  #frame() {
    this.#release();
    // A tab that was in the background may hold a megabyte: take it in bites, so that no frame is long.
    const bite = this.#waiting.slice(0, FRAME_CHARACTERS);
    this.#waiting = this.#waiting.slice(FRAME_CHARACTERS);
    const lines = bite.split("\n");
    lines.forEach((part, index) => {
      this.#line += part;
      if (index < lines.length - 1) this.#endLine();
      while (this.#line.length > UNBROKEN_LINE_CHARACTERS) this.#breakLine();
    });
    this.#show();
    if (this.#waiting) this.#schedule();
    this.#grown();
  }

  /** Lets the browser skip finished parts out of sight, but only once it knows their size: the page must not jump. */
  #release() {
    for (const part of this.#laidOut) part.classList.add("finished");
    this.#laidOut = this.#finished;
    this.#finished = [];
  }

  #endLine() {
    const line = this.#line;
    this.#line = "";
    const fence = this.#formatted ? FENCE.exec(line) : null;
    if (this.#fence) {
      if (fence && !fence[2].trim() && fence[1].startsWith(this.#fence)) this.#close();
      else this.#add(`${line}\n`);
    } else if (fence) {
      this.#close();
      this.#openCode(fence[1], fence[2].trim());
    } else if (this.#formatted && line.trim() === "") this.#close();
    else this.#add(`${line}\n`);
  }

  #breakLine() {
    const space = this.#line.lastIndexOf(" ", UNBROKEN_LINE_CHARACTERS) + 1 || UNBROKEN_LINE_CHARACTERS;
    const rest = this.#line.slice(space);
    this.#add(this.#line.slice(0, space));
    this.#line = rest;
    // What was added may have ended the block already.
    if (this.#blockText) this.#continue();
  }

  #add(text) {
    this.#block ??= this.#newBlock("block");
    this.#blockText += text;
    if (this.#blockText.length > BLOCK_CHARACTERS) this.#continue();
  }

  /** Ends the block for its size only: what follows belongs together with it. */
  #continue() {
    this.#fill(this.#blockText);
    this.#chapterCharacters += this.#blockText.length;
    if (this.#fence) this.#finished.push(this.#block);
    this.#blockText = "";
    this.#block = this.#fence ? this.#newCodePart() : null;
  }

  #close() {
    if (this.#block) {
      this.#fill(this.#blockText);
      this.#chapterCharacters += this.#blockText.length;
    }
    this.#block = null;
    this.#blockText = "";
    this.#fence = null;
    this.#code = null;
  }

  #newBlock(name) {
    if (this.#chapter && this.#chapterCharacters > CHAPTER_CHARACTERS) {
      this.#finished.push(this.#chapter);
      this.#chapter = null;
    }
    if (!this.#chapter) {
      this.#chapter = element("div", { class: "chapter" });
      this.#chapterCharacters = 0;
      this.#container.append(this.#chapter);
    }
    const block = element("div", { class: this.#formatted ? name : `${name} plain` });
    this.#chapter.append(block);
    return block;
  }

  #openCode(fence, language) {
    const block = this.#newBlock("block code");
    if (language) block.append(element("span", { class: "language" }, language.split(/\s/)[0]));
    this.#code = element("pre", { tabindex: "0", role: "group", "aria-label": `Code${language ? `, ${language}` : ""}` });
    block.append(this.#code);
    this.#fence = fence;
    this.#block = this.#newCodePart();
  }

  #newCodePart() {
    const part = element("code");
    this.#code.append(part);
    return part;
  }

  /** Puts the open block on the page, with the line that is still being written. */
  #show() {
    const undecided = this.#formatted && PERHAPS_A_FENCE.test(this.#line);
    const text = this.#blockText + (undecided ? "" : this.#line);
    if (!text) return;
    this.#block ??= this.#newBlock("block");
    this.#fill(text);
  }

  #fill(text) {
    if (this.#fence || !this.#formatted) fillText(this.#block, text);
    else this.#block.replaceChildren(...blockNodes(text));
  }
}

/** Appends only what is new, so that a selection in the text survives. */
function fillText(target, text) {
  const node = target.firstChild;
  if (!node) target.append(text);
  else if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}
