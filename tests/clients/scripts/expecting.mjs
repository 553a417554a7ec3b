// What the scripts expect of their libraries.
export const QUESTION = "Why is the sky blue?";
export const BREAK_OFF = "Please break off.";
export const MODEL = "llama3.2";
export const SPELLING = "LLAMA3.2:latest";
export const THINKER = "qwen3:4b";
export const EMBEDDER = "nomic-embed-text";
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const TOOL = { type: "function", function: { name: "weather", description: "The weather of a city", parameters } };

export const messages = (content) => [{ role: "user", content }];

export function expect(isTrue, what) {
  if (!isTrue) throw new Error(`expected: ${what}`);
}

export async function expectError(call, what, said = "") {
  let result;
  try {
    result = await call();
  } catch (error) {
    expect(String(error.message ?? error).includes(said), `${what}: raised ${error}, without ${said}`);
    console.log(`${what}: ${error.constructor.name}: ${error.message}`);
    return;
  }
  throw new Error(`${what}: nothing was raised, but returned ${JSON.stringify(result)}`);
}
