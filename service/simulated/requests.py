"""The request bodies of Ollama's routes (wire contract 1), field by field."""

from __future__ import annotations

from service.simulated.go_types import (
    Struct,
    anything,
    boolean,
    duration,
    image,
    integer,
    list_of,
    mapping,
    real,
    string,
    string_mapping,
    think,
)

_tool_call = Struct(
    "ToolCall",
    {"id": string, "function": Struct("ToolCallFunction", {"index": integer, "name": string, "arguments": mapping})},
)

_message = Struct(
    "Message",
    {
        "role": string,
        "content": string,
        "thinking": string,
        "images": list_of(image, "api.ImageData"),
        "tool_calls": list_of(_tool_call, "api.ToolCall"),
        "tool_name": string,
        "tool_call_id": string,
    },
    has_own_decoder=True,
)

_tool = Struct(
    "Tool",
    {
        "type": string,
        "items": anything,
        "function": Struct("ToolFunction", {"name": string, "description": string, "parameters": mapping}),
    },
)

_generation = {
    "model": string,
    "stream": boolean,
    "format": anything,
    "keep_alive": duration,
    "options": mapping,
    "think": think,
    "truncate": boolean,
    "shift": boolean,
    "logprobs": boolean,
    "top_logprobs": integer,
    "_debug_render_only": boolean,
}

GENERATE = Struct(
    "GenerateRequest",
    {
        **_generation,
        "prompt": string,
        "suffix": string,
        "system": string,
        "template": string,
        "context": list_of(integer, "int"),
        "raw": boolean,
        "images": list_of(image, "api.ImageData"),
    },
)

CHAT = Struct(
    "ChatRequest",
    {**_generation, "messages": list_of(_message, "api.Message"), "tools": list_of(_tool, "api.Tool")},
)

EMBED = Struct(
    "EmbedRequest",
    {
        "model": string,
        "input": anything,
        "keep_alive": duration,
        "truncate": boolean,
        "dimensions": integer,
        "options": mapping,
    },
)

EMBEDDINGS = Struct("EmbeddingRequest", {"model": string, "prompt": string, "keep_alive": duration, "options": mapping})

SHOW = Struct(
    "ShowRequest",
    {"model": string, "name": string, "system": string, "template": string, "verbose": boolean, "options": mapping},
)
PULL = Struct("PullRequest", {"model": string, "name": string, "insecure": boolean, "stream": boolean})
PUSH = Struct("PushRequest", {"model": string, "name": string, "insecure": boolean, "stream": boolean})
DELETE = Struct("DeleteRequest", {"model": string, "name": string})
COPY = Struct("CopyRequest", {"source": string, "destination": string})
CREATE = Struct(
    "CreateRequest",
    {
        "model": string,
        "name": string,
        "from": string,
        "files": string_mapping,
        "adapters": string_mapping,
        "template": string,
        "license": anything,
        "system": string,
        "parameters": mapping,
        "messages": list_of(_message, "api.Message"),
        "quantize": string,
        "stream": boolean,
    },
)

_openai_message = Struct(
    "Message",
    {
        "role": string,
        "content": anything,
        "reasoning": string,
        "tool_calls": list_of(mapping, "openai.ToolCall"),
        "name": string,
        "tool_call_id": string,
    },
)
_stream_options = Struct("StreamOptions", {"include_usage": boolean})

CHAT_COMPLETION = Struct(
    "ChatCompletionRequest",
    {
        "model": string,
        "messages": list_of(_openai_message, "openai.Message"),
        "stream": boolean,
        "stream_options": _stream_options,
        "max_tokens": integer,
        "seed": integer,
        "stop": anything,
        "temperature": real,
        "frequency_penalty": real,
        "presence_penalty": real,
        "top_p": real,
        "response_format": Struct("ResponseFormat", {"type": string, "json_schema": mapping}),
        "tools": list_of(_tool, "api.Tool"),
        "reasoning": Struct("Reasoning", {"effort": string}),
        "reasoning_effort": string,
        "logprobs": boolean,
        "top_logprobs": integer,
    },
)

COMPLETION = Struct(
    "CompletionRequest",
    {
        "model": string,
        "prompt": string,
        "frequency_penalty": real,
        "max_tokens": integer,
        "presence_penalty": real,
        "seed": integer,
        "stop": anything,
        "stream": boolean,
        "stream_options": _stream_options,
        "temperature": real,
        "top_p": real,
        "suffix": string,
        "logprobs": integer,
    },
)

EMBEDDING_LIST = Struct(
    "EmbedRequest", {"input": anything, "model": string, "dimensions": integer, "encoding_format": string}
)

DECISION = Struct(
    "SystemOneRequest",
    {
        "model": string,
        "state": anything,
        "images": list_of(image, "api.ImageData"),
        "questions": mapping,
        "keep_alive": duration,
    },
)

_picture = {"model": string, "prompt": string, "size": string, "seed": integer}

IMAGE_GENERATION = Struct("ImageGenerationRequest", {**_picture, "n": integer, "response_format": string})
IMAGE_EDIT = Struct("ImageEditRequest", {**_picture, "image": string})

RESPONSES = Struct(
    "ResponsesRequest",
    {
        "model": string,
        "background": boolean,
        "input": anything,
        "instructions": string,
        "max_output_tokens": integer,
        "reasoning": Struct("ResponsesReasoning", {"effort": string, "summary": string}),
        "temperature": real,
        "text": mapping,
        "top_p": real,
        "truncation": string,
        "tools": list_of(mapping, "openai.ResponsesTool"),
        "stream": boolean,
    },
)

MESSAGES = Struct(
    "MessagesRequest",
    {
        "model": string,
        "max_tokens": integer,
        "messages": list_of(Struct("MessageParam", {"role": string, "content": anything}), "anthropic.MessageParam"),
        "system": anything,
        "stream": boolean,
        "temperature": real,
        "top_p": real,
        "top_k": integer,
        "stop_sequences": list_of(string, "string"),
        "tools": list_of(mapping, "anthropic.Tool"),
        "thinking": mapping,
        "output_config": mapping,
    },
)
