"""Each row of the endpoints has all that belongs to one: a route, readers, a description, a translation, errors."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from service.api import anthropic, ollama, openai
from service.api.anthropic.routes import DIALECT as ANTHROPIC
from service.api.documentation.document import OPERATIONS
from service.api.http.failures import ERROR_SHAPES
from service.api.http.operation import JSON, NDJSON, TEXT
from service.api.ollama.routes import DIALECT as OLLAMA
from service.api.openai.routes import DIALECT as OPENAI
from service.app import build_app
from service.backend.protocols import reader_for
from service.config import Config, ModelConfig
from service.endpoints import ENDPOINTS, JOB_PATHS, OWN_JOB_PATHS, Endpoint, Kind, Streams
from service.model_limits import ModelLimits
from tests.support.openapi import served_routes

DIALECTS = {dialect.door: dialect for dialect in (OLLAMA, OPENAI, ANTHROPIC)}
SHAPES = {"ollama": ollama.shape, "openai": openai.shape, "anthropic": anthropic.shape}
LIMITED = ModelLimits({"m": ModelConfig(max_tokens=7)})
NO_LIMITS = ModelLimits({})

every_endpoint = pytest.mark.parametrize("row", ENDPOINTS.values(), ids=ENDPOINTS)


def body_of(row: Endpoint, **fields: Any) -> dict[str, Any]:
    content = [{"role": "user", "content": "why"}] if row.content == "messages" else "why"
    return {"model": "m", row.content: content, **fields}


@every_endpoint
def test_it_has_a_route_that_is_in_the_request_log(row: Endpoint) -> None:
    assert ("POST", row.path) in served_routes(build_app(Config()))
    assert row.path in JOB_PATHS


def test_no_path_makes_jobs_but_those_of_the_endpoints_and_our_own() -> None:
    assert JOB_PATHS - set(ENDPOINTS) == set(OWN_JOB_PATHS)
    assert {("POST", path) for path in OWN_JOB_PATHS} <= served_routes(build_app(Config()))


@every_endpoint
def test_it_has_a_reader_of_whole_replies_and_one_of_streams_where_it_streams(row: Endpoint) -> None:
    whole, streamed = (reader_for(row.path, streamed=streamed) for streamed in (False, True))
    assert (type(whole) is not type(streamed)) == (row.streamed_reader is not None)
    assert row.streams is Streams.NO or row.streamed_reader is not None
    assert row.kind is Kind.WRITES or row.token_field is None


@every_endpoint
def test_the_document_tells_of_it(row: Endpoint) -> None:
    operation = OPERATIONS["POST", row.path]
    assert (operation.tag, operation.request_media_type) == (row.door, row.body)
    asked = set(get_type_hints(operation.request))
    assert {"model", row.content} <= asked
    assert ("options" in asked) == row.has_options
    assert ("keep_alive" in asked) == (row.has_options or row.has_keep_alive)
    assert ("stream" in asked) == (row.streamed_reader is not None)
    assert row.has_options or row.token_field is None or row.token_field in asked
    content = operation.replies[200].content
    others = {TEXT, NDJSON} if row.text_reader else {NDJSON} if row.kind is Kind.DRAWS else set()
    assert set(content) == {JSON} | ({DIALECTS[row.door].stream_type} if row.streamed_reader else others)


@every_endpoint
def test_its_dialect_translates_a_request(row: Endpoint) -> None:
    dialect = DIALECTS[row.door]
    details = dialect.describe(row, body_of(row), False, NO_LIMITS)
    assert details is not None
    assert (details.model, details.prompt, details.is_unload) == ("m", "why", False)
    assert details.is_streamed == (row.streams is not Streams.NO)
    if row.streams is Streams.BY_CALLER:
        whole = dialect.describe(row, body_of(row), True, NO_LIMITS)
        assert whole is not None
        assert not whole.is_streamed
        assert whole.body is not None
        assert whole.body["stream"] is False
    for said in (True, False):
        told = dialect.describe(row, body_of(row, stream=said), False, NO_LIMITS)
        assert told is not None
        assert told.is_streamed == (said and row.streamed_reader is not None)
    assert dialect.describe(row, body_of(row, model=5), False, NO_LIMITS) is None


@every_endpoint
def test_a_limit_holds_in_its_field(row: Endpoint) -> None:
    details = DIALECTS[row.door].describe(row, body_of(row, max_tokens=9, max_output_tokens=9), False, LIMITED)
    assert details is not None
    sent = details.body or {}
    bounds = sent.get("options", {}) if row.has_options else sent
    assert row.token_field is None or bounds[row.token_field] == 7
    without = DIALECTS[row.door].describe(row, body_of(row), False, LIMITED)
    assert without is not None
    assert not row.needs_tokens or without.body is None


def test_the_limit_on_how_long_a_model_stays_holds_where_it_is_the_only_option() -> None:
    limits = ModelLimits({"m": ModelConfig(keep_alive=60, default_keep_alive=30, num_ctx=512, default_num_ctx=512)})
    row = ENDPOINTS["/v1/systemone"]
    for asked, sent in (({"keep_alive": "1h"}, 60), ({}, 30), ({"keep_alive": 5}, None)):
        details = OPENAI.describe(row, body_of(row, **asked), False, limits)
        assert details is not None
        assert details.runner == "m:latest"
        assert (details.body or {}) == ({} if sent is None else body_of(row, keep_alive=sent))


def test_the_words_of_a_state_that_is_no_text_are_its_json() -> None:
    row = ENDPOINTS["/v1/systemone"]
    details = OPENAI.describe(row, {"model": "m", "state": [{"ticket": "é"}]}, False, NO_LIMITS)
    assert details is not None
    assert details.prompt == '[{"ticket": "é"}]'


@every_endpoint
def test_its_errors_have_the_shape_of_their_dialect(row: Endpoint) -> None:
    shapes = build_app(Config())[ERROR_SHAPES]
    assert shapes.find(row.path) is SHAPES[row.errors]
