// OpenAI's own client for JavaScript.
import OpenAI from "openai";
import { expect, expectError, messages, BREAK_OFF, EMBEDDER, MODEL, QUESTION, SPELLING, TOOL } from "./expecting.mjs";

const openai = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "any", maxRetries: 0 });
const whole = await openai.chat.completions.create({ model: SPELLING, messages: messages(QUESTION) });
let streamed = "";
for await (const chunk of await openai.chat.completions.create({ model: SPELLING, messages: messages(QUESTION), stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
expect(streamed && whole.choices[0].message.content === streamed, "whole and streamed chat differ");
const called = await openai.chat.completions.create({ model: MODEL, messages: messages(QUESTION), tools: [TOOL] });
expect(called.choices[0].message.tool_calls?.[0].function.name === "weather", "no tool call");
expect((await openai.completions.create({ model: MODEL, prompt: QUESTION })).choices[0].text, "no completion");
expect((await openai.responses.create({ model: MODEL, input: QUESTION })).output_text, "no response");
expect((await openai.embeddings.create({ model: EMBEDDER, input: ["a", "b"] })).data[1].embedding.length === 768, "no embeddings");
expect((await openai.models.list()).data.length === 3, "no list");
await expectError(() => openai.chat.completions.create({ model: "nosuch", messages: messages(QUESTION) }), "unknown model", "not found");
await expectError(async () => {
  for await (const chunk of await openai.chat.completions.create({ model: MODEL, messages: messages(BREAK_OFF), stream: true })) void chunk;
}, "cut chat");
await expectError(async () => {
  for await (const event of await openai.responses.create({ model: MODEL, input: BREAK_OFF, stream: true })) void event;
}, "cut response");
