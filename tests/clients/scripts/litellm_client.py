"""LiteLLM with each of the three APIs."""

from __future__ import annotations

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from tests.clients.scripts.expecting import BREAK_OFF, EMBEDDER, MODEL, QUESTION, SPELLING, expect, expect_error

URL = sys.argv[1]
MESSAGES = [{"role": "user", "content": QUESTION}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

for model, base, key in (
    (f"ollama_chat/{SPELLING}", URL, None),
    (f"ollama/{MODEL}", URL, None),
    (f"openai/{SPELLING}", f"{URL}/v1", "any"),
    (f"anthropic/{SPELLING}", URL, "any"),
):

    def ask(model: str = model, base: str = base, key: str | None = key, **more: object) -> object:
        given = {"model": model, "messages": MESSAGES, "api_base": base, "api_key": key, "max_tokens": 50, **more}
        return litellm.completion(num_retries=0, **given)

    whole = ask().choices[0].message.content
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
    expect(whole and whole == streamed, f"{model}: whole and streamed chat differ: {whole!r}, {streamed!r}")
    if not model.startswith("ollama/"):
        called = ask(tools=[TOOL]).choices[0].message.tool_calls
        expect([call.function.name for call in called] == ["weather"], f"{model}: no tool call")
    broken = [{"role": "user", "content": BREAK_OFF}]
    expect_error(lambda ask=ask, broken=broken: ask(stream=True, messages=broken), f"{model}: cut stream")
    family = model.partition("/")[0]
    expect_error(lambda ask=ask, family=family: ask(model=f"{family}/nosuch"), f"{model}: unknown model", "not found")

for model, base in ((f"ollama/{EMBEDDER}", URL), (f"openai/{EMBEDDER}", f"{URL}/v1")):
    form = {} if model.startswith("ollama") else {"encoding_format": "float"}
    vectors = litellm.embedding(model=model, input=["a", "b"], api_base=base, api_key="any", **form)
    expect(len(vectors.data) == 2, f"{model}: no embeddings")
