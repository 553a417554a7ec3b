"""What takes long to read, to judge or to explain is refused before it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service import go_json
from service.api.dropin.reading import read_call
from service.api.prompts.schema import PromptRequest
from service.api.requests.schema import GenerateRequest
from service.config import LONGEST_DURATION, duration_seconds
from service.errors import InvalidRequestError
from service.keys.shapes import KeyRequest
from service.validation import validated

LARGE = 3 << 20


def test_a_duration_of_many_parts_is_none() -> None:
    assert duration_seconds("1s" * (LONGEST_DURATION // 2)) == LONGEST_DURATION // 2
    with pytest.raises(ValueError, match="write seconds"):
        duration_seconds("1s" * LONGEST_DURATION)
    with pytest.raises(InvalidRequestError, match="keep_alive: must be at most 100 characters"):
        read_call(b'{"model":"x","keep_alive":"' + b"1s" * LARGE + b'"}')


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a":"' + b"x" * LARGE + b'" "b"}', "invalid JSON: expected"),
        (b'{"a":1' + b" " * LARGE + b"x}", "invalid JSON: expected"),
        (b'{"a":"\\ud800' + b"x" * LARGE + b'"}', "invalid JSON: "),
        (b'{"a":"' + b"x" * LARGE + b'"} x', "invalid JSON: trailing characters"),
    ],
)
def test_a_large_body_is_read_by_the_quick_parser_alone(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        go_json.parse(body)


def test_bytes_that_are_no_utf_8_are_replaced_in_large_bodies_too() -> None:
    assert go_json.parse(b'{"a":"' + b"x" * LARGE + b'\xff"}')["a"][-2:] == "x\ufffd"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [1] * 1000},
        {"prompt": "x", "tools": [1] * 1000},
        {"prompt": "x", "images": [""] * 1000},
        {"messages": [{"role": "user", "images": [1] * 1000}]},
        {"messages": [{"role": "user", "tool_calls": [1] * 1000}]},
    ],
)
def test_of_a_long_list_the_first_wrong_item_is_described(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        PromptRequest.__pydantic_validator__.validate_python(fields)
    assert refusal.value.error_count() <= 2


def test_of_a_keys_models_the_first_wrong_one_is_described() -> None:
    with pytest.raises(ValidationError) as refusal:
        KeyRequest.__pydantic_validator__.validate_python({"name": "x", "models": [1] * 1000})
    assert refusal.value.error_count() == 1


@pytest.mark.parametrize("model", [PromptRequest, GenerateRequest, KeyRequest])
def test_many_unknown_fields_are_not_described_one_by_one(model: Any) -> None:
    with pytest.raises(InvalidRequestError, match="more than 100 fields"):
        validated(model, {f"field{number}": 1 for number in range(101)})


def test_of_a_long_name_only_the_beginning_is_told() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        validated(PromptRequest, {"prompt": "x", "y" * LARGE: 1})
    assert len(str(refusal.value)) < 500
    assert len(refusal.value.field) < 100


def test_the_bracket_that_is_open_is_found_past_strings_and_escapes() -> None:
    for body, said in (
        (b'["a]" "b"]', "after array element"),
        (b'{"a":"[\\"[" "b"]', "after object key:value pair"),
        (b'[{"a":[]} {', "after array element"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            go_json.parse(body)
