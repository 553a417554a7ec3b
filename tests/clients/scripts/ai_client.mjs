// The AI SDK, by OpenAI's API.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { expect, expectError, BREAK_OFF, EMBEDDER, MODEL, QUESTION, SPELLING } from "./expecting.mjs";

const provider = createOpenAICompatible({ name: "corral", baseURL: `${process.argv[2]}/v1`, supportsStructuredOutputs: true });
const whole = await generateText({ model: provider(SPELLING), prompt: QUESTION, maxRetries: 0 });
const streamed = await streamText({ model: provider(SPELLING), prompt: QUESTION, maxRetries: 0 }).text;
expect(whole.text && whole.text === streamed, "whole and streamed text differ");
const schema = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] });
const tools = { weather: tool({ description: "The weather of a city", inputSchema: schema }) };
const called = await generateText({ model: provider(MODEL), prompt: QUESTION, tools });
expect(called.toolCalls[0]?.toolName === "weather", "no tool call");
const formed = await generateObject({ model: provider(MODEL), prompt: QUESTION, schema });
expect(typeof formed.object.city === "string", "no structured output");
const vectors = await embedMany({ model: provider.textEmbeddingModel(EMBEDDER), values: ["a", "b"] });
expect(vectors.embeddings.length === 2, "no embeddings");
await expectError(() => generateText({ model: provider("nosuch"), prompt: QUESTION, maxRetries: 0 }), "unknown model", "not found");
await expectError(async () => {
  let failure;
  const onError = ({ error }) => (failure = error);
  for await (const part of streamText({ model: provider(MODEL), prompt: BREAK_OFF, maxRetries: 0, onError }).fullStream) {
    if (part.type === "error") throw part.error instanceof Error ? part.error : new Error(JSON.stringify(part.error));
  }
  if (failure) throw failure;
}, "cut stream");
