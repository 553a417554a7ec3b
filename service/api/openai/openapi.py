"""What the API's document says of OpenAI's API."""

from __future__ import annotations

from service.api.dropin.installed import LIST_AGE
from service.api.dropin.openapi import LISTED, relayed
from service.api.http.operation import (
    EVENT_STREAM,
    JSON,
    NDJSON,
    TEXT,
    Operation,
    Operations,
    Parameter,
    ReplyDoc,
    others,
    refusals,
)
from service.api.openai.errors import OpenAIError
from service.api.openai.schema import (
    ChatCompletion,
    ChatCompletionRequest,
    Completion,
    CompletionRequest,
    Decision,
    DecisionRequest,
    Embeddings,
    EmbeddingsRequest,
    ImageEditRequest,
    ImageGenerationRequest,
    Images,
    NativeError,
    OpenAIModel,
    OpenAIModelList,
    ResponsesEvent,
    ResponsesReply,
    ResponsesRequest,
    Transcription,
    TranscriptionForm,
)

_TAG = "openai"
_REFUSED = {
    **refusals(OpenAIError, JSON, 401, 503),
    "default": others({JSON: OpenAIError, TEXT: str}),
}

OPERATIONS: Operations = {
    **relayed(
        "/v1/chat/completions",
        "Answer a chat",
        ChatCompletionRequest,
        {JSON: ChatCompletion, EVENT_STREAM: ChatCompletion | OpenAIError},
        OpenAIError,
    ),
    **relayed(
        "/v1/completions",
        "Complete a prompt",
        CompletionRequest,
        {JSON: Completion, EVENT_STREAM: Completion | OpenAIError},
        OpenAIError,
    ),
    **relayed("/v1/embeddings", "Embed texts", EmbeddingsRequest, {JSON: Embeddings}, OpenAIError),
    **relayed(
        "/v1/responses", "Respond", ResponsesRequest, {JSON: ResponsesReply, EVENT_STREAM: ResponsesEvent}, OpenAIError
    ),
    **relayed(
        "/v1/audio/transcriptions",
        "Write down what is said",
        TranscriptionForm,
        # Ollama calls both forms x-ndjson once it has sent its head.
        {JSON: Transcription, NDJSON: Transcription | str, TEXT: str},
        OpenAIError,
        is_everywhere=False,
    ),
    **relayed(
        "/v1/images/generations",
        "Draw a picture",
        ImageGenerationRequest,
        {JSON: Images, NDJSON: Images},
        OpenAIError,
        is_everywhere=False,
    ),
    **relayed(
        "/v1/images/edits",
        "Change a picture",
        ImageEditRequest,
        {JSON: Images, NDJSON: Images},
        OpenAIError,
        is_everywhere=False,
    ),
    **relayed(
        "/v1/systemone",
        "Answer questions about a state of things by probabilities",
        DecisionRequest,
        {JSON: Decision},
        NativeError,
        is_everywhere=False,
    ),
    ("GET", "/v1/models"): Operation(
        summary="List the models",
        tag=_TAG,
        replies={200: ReplyDoc(LISTED, {JSON: OpenAIModelList}, (LIST_AGE,)), **_REFUSED},
    ),
    ("GET", "/v1/models/{name}"): Operation(
        summary="Read one model",
        tag=_TAG,
        parameters=(Parameter("name", "path", "As the list has it; with ``/``, too."),),
        replies={
            200: ReplyDoc("The model.", {JSON: OpenAIModel}, (LIST_AGE,)),
            404: ReplyDoc("There is no such model.", {JSON: OpenAIError, TEXT: str}),
            **_REFUSED,
        },
    ),
}
