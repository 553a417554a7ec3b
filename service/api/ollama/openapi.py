"""What the API's document says of Ollama's own API."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from service.api.dropin.installed import LIST_AGE
from service.api.dropin.openapi import LISTED, relayed
from service.api.http.operation import (
    BYTES,
    JSON,
    NDJSON,
    TEXT,
    Access,
    Operation,
    Operations,
    Parameter,
    ReplyDoc,
    others,
    refusals,
)
from service.api.ollama.errors import OllamaError
from service.api.ollama.schema import (
    OllamaAccount,
    OllamaChatReply,
    OllamaChatRequest,
    OllamaCopyRequest,
    OllamaCreateRequest,
    OllamaDeleteRequest,
    OllamaEmbeddingsReply,
    OllamaEmbeddingsRequest,
    OllamaEmbedReply,
    OllamaEmbedRequest,
    OllamaGenerateReply,
    OllamaGenerateRequest,
    OllamaLoaded,
    OllamaProgress,
    OllamaRecommendations,
    OllamaShowReply,
    OllamaShowRequest,
    OllamaStatus,
    OllamaTags,
    OllamaTransferRequest,
    OllamaVersion,
    OllamaWebFetchRequest,
    OllamaWebSearchRequest,
)
from service.endpoints import CHAT, GENERATE

_TAG = "ollama"
_REFUSED = refusals(OllamaError, JSON, 401, 403, 503)
_DIGEST = Parameter("digest", "path", "Of the file.", Annotated[str, Field(pattern="^sha256[:-][0-9a-f]{64}$")])
_BACKEND = Parameter("X-Backend", "header", "The backend's name; else it is the first that answers.")
_KEY = Parameter("key", "path", "In base64.", Annotated[str, Field(pattern="^[0-9A-Za-z_=-]{1,2048}$")])
_RELAYED = others({JSON: OllamaError, TEXT: str})
_MANAGED = {**_REFUSED, **refusals(OllamaError, JSON, 404, 413), "default": _RELAYED}


def _list(summary: str, reply: ReplyDoc) -> Operation:
    return Operation(summary=summary, tag=_TAG, replies={200: reply, **_REFUSED, "default": _RELAYED})


def _management(summary: str, request: Any, *replies: tuple[int, ReplyDoc], **more: Any) -> Operation:
    return Operation(
        summary=summary,
        description="At one backend, past the queue.",
        tag=_TAG,
        access=Access.ADMIN,
        request=request,
        replies={**dict(replies), **_MANAGED},
        **{"parameters": (_BACKEND,), **more},
    )


_ONE = "As one backend tells it."
_DONE = (200, ReplyDoc("Done."))
_PROGRESS = (
    200,
    ReplyDoc("How far it is, line by line.", {JSON: OllamaProgress, NDJSON: OllamaProgress | OllamaError}),
)

OPERATIONS: Operations = {
    **relayed(
        GENERATE,
        "Complete a prompt",
        OllamaGenerateRequest,
        {JSON: OllamaGenerateReply, NDJSON: OllamaGenerateReply | OllamaError},
        OllamaError,
    ),
    **relayed(
        CHAT,
        "Answer a chat",
        OllamaChatRequest,
        {JSON: OllamaChatReply, NDJSON: OllamaChatReply | OllamaError},
        OllamaError,
    ),
    **relayed("/api/embed", "Embed texts", OllamaEmbedRequest, {JSON: OllamaEmbedReply}, OllamaError),
    **relayed("/api/embeddings", "Embed one text", OllamaEmbeddingsRequest, {JSON: OllamaEmbeddingsReply}, OllamaError),
    ("GET", "/api/tags"): _list("List the installed models", ReplyDoc(LISTED, {JSON: OllamaTags}, (LIST_AGE,))),
    ("GET", "/api/ps"): _list("List the loaded models", ReplyDoc("Those of all backends.", {JSON: OllamaLoaded})),
    ("GET", "/api/version"): _list(
        "Tell the version",
        ReplyDoc("The lowest of all backends': what it can do all can.", {JSON: OllamaVersion}),
    ),
    ("POST", "/api/show"): Operation(
        summary="Describe a model",
        tag=_TAG,
        request=OllamaShowRequest,
        replies={
            200: ReplyDoc("What is known of it.", {JSON: OllamaShowReply}),
            **_REFUSED,
            **refusals(OllamaError, JSON, 400, 404, 408, 413, 415),
            "default": _RELAYED,
        },
    ),
    ("GET", "/api/status"): _list("Tell whether the cloud may be used", ReplyDoc(_ONE, {JSON: OllamaStatus})),
    ("POST", "/api/me"): _list("Tell the account at ollama.com", ReplyDoc(_ONE, {JSON: OllamaAccount})),
    ("GET", "/api/experimental/model-recommendations"): _list(
        "List recommended models", ReplyDoc(_ONE, {JSON: OllamaRecommendations})
    ),
    ("POST", "/api/pull"): replace(
        _management("Pull a model", OllamaTransferRequest, _PROGRESS),
        description="At one backend, past the queue. Without an admin's key, a model that is there: `success` at once.",
        access=Access.CALLER,
        replies={**_MANAGED, **refusals(OllamaError, JSON, 400, 408, 415), 200: _PROGRESS[1]},
    ),
    ("POST", "/api/push"): _management("Push a model", OllamaTransferRequest, _PROGRESS),
    ("POST", "/api/create"): _management("Create a model", OllamaCreateRequest, _PROGRESS),
    ("POST", "/api/copy"): _management("Copy a model", OllamaCopyRequest, _DONE),
    ("DELETE", "/api/delete"): _management("Delete a model", OllamaDeleteRequest, _DONE),
    ("POST", "/api/blobs/{digest}"): _management(
        "Upload a file",
        bytes,
        (201, ReplyDoc("It is stored.")),
        (200, ReplyDoc("It was there.")),
        request_media_type=BYTES,
        parameters=(_DIGEST, _BACKEND),
    ),
    ("HEAD", "/api/blobs/{digest}"): _management(
        "Look for a file", None, (200, ReplyDoc("It is there.")), parameters=(_DIGEST, _BACKEND)
    ),
    ("POST", "/api/signout"): _management("Sign out of ollama.com", None, _DONE),
    ("DELETE", "/api/user/keys/{key}"): _management(
        "Sign out of ollama.com by a key", None, _DONE, parameters=(_KEY, _BACKEND)
    ),
    ("POST", "/api/experimental/web_search"): _management(
        "Search the web", OllamaWebSearchRequest, (200, ReplyDoc("What was found.", {JSON: dict[str, Any]}))
    ),
    ("POST", "/api/experimental/web_fetch"): _management(
        "Fetch a page of the web", OllamaWebFetchRequest, (200, ReplyDoc("The page.", {JSON: dict[str, Any]}))
    ),
}
