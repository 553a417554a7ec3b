// Anthropic's own client for JavaScript.
import Anthropic from "@anthropic-ai/sdk";
import { expect, expectError, messages, BREAK_OFF, MODEL, QUESTION, SPELLING, TOOL } from "./expecting.mjs";

const anthropic = new Anthropic({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const asked = (model, content) => ({ model, max_tokens: 50, messages: messages(content) });
const whole = await anthropic.messages.create(asked(SPELLING, QUESTION));
const streamed = await anthropic.messages.stream(asked(SPELLING, QUESTION)).finalMessage();
expect(whole.content[0].text && whole.content[0].text === streamed.content[0].text, "whole and streamed message differ");
const tools = [{ name: "weather", description: "The weather of a city", input_schema: TOOL.function.parameters }];
const called = await anthropic.messages.create({ ...asked(MODEL, QUESTION), tools });
expect(called.content[0].name === "weather", "no tool call");
await expectError(() => anthropic.messages.create(asked("nosuch", QUESTION)), "unknown model", "not found");
await expectError(() => anthropic.messages.stream(asked(MODEL, BREAK_OFF)).finalMessage(), "cut stream");
