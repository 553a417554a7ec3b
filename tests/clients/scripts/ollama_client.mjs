// Ollama's own client for JavaScript.
import { Ollama } from "ollama";
import { expect, expectError, messages, BREAK_OFF, EMBEDDER, MODEL, QUESTION, SPELLING, THINKER, TOOL } from "./expecting.mjs";

const ollama = new Ollama({ host: process.argv[2] });
const whole = await ollama.chat({ model: SPELLING, messages: messages(QUESTION) });
let streamed = "";
for await (const part of await ollama.chat({ model: SPELLING, messages: messages(QUESTION), stream: true })) {
  streamed += part.message.content;
}
expect(whole.message.content && whole.message.content === streamed, "whole and streamed chat differ");
expect(whole.model === SPELLING, "the model's name is not echoed");
const called = await ollama.chat({ model: MODEL, messages: messages(QUESTION), tools: [TOOL] });
expect(called.message.tool_calls?.[0].function.name === "weather", "no tool call");
const format = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
const formed = await ollama.chat({ model: MODEL, messages: messages(QUESTION), format });
expect(typeof JSON.parse(formed.message.content).name === "string", "no structured output");
expect((await ollama.chat({ model: THINKER, messages: messages(QUESTION), think: true })).message.thinking, "no thinking");
expect((await ollama.generate({ model: MODEL, prompt: QUESTION })).response, "no completion");
expect((await ollama.embed({ model: EMBEDDER, input: ["a", "b"] })).embeddings.length === 2, "no embeddings");
expect((await ollama.list()).models.length === 3, "no list");
expect((await ollama.ps()).models.length > 0, "nothing is loaded");
expect((await ollama.show({ model: MODEL })).capabilities.includes("tools"), "not shown");
await expectError(() => ollama.chat({ model: "nosuch", messages: messages(QUESTION) }), "unknown model", "not found");
await expectError(async () => {
  for await (const part of await ollama.chat({ model: MODEL, messages: messages(BREAK_OFF), stream: true })) void part;
}, "cut stream");
const aborted = await ollama.chat({ model: MODEL, messages: messages("Please stall."), stream: true });
await expectError(async () => {
  for await (const part of aborted) {
    void part;
    aborted.abort();
  }
}, "cancelled stream");
expect((await ollama.generate({ model: MODEL, prompt: "", keep_alive: 0 })).done_reason === "unload", "not unloaded");
