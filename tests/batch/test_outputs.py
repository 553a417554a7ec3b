"""Outputs: what stands in a line, and how a file grows, is gone on with, and gets new outcomes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from corral.batch.journal import Journal, Place
from corral.batch.lines import Kind, Line, Outcome
from corral.batch.merging import failed_places, merge
from corral.batch.outputs import Outputs
from corral.batch.rendering import Form, Renderer, form_of
from corral.errors import ConfigurationError

GOOD = Outcome("completed", result="yes", model="m", prompt_tokens=1, completion_tokens=2, seconds=0.5, job_id="j")
BAD = Outcome("failed", code="model_not_found", message="there is none", job_id="j")
MARK = "0" * 8


def line(place: int = 0, own_id: Any = None, kind: Kind = Kind.PROMPT, **columns: str) -> Line:
    return Line(place, place + 1, own_id, kind, {"prompt": "p"}, b'"p"', columns=columns or None)


def test_a_line_says_in_this_order_what_became_of_it() -> None:
    found = json.loads(Renderer(Form.JSONL).line(line(3, "x"), GOOD, MARK))
    assert list(found.items()) == [
        ("index", 3), ("id", "x"), ("status", "completed"), ("result", "yes"), ("model", "m"), ("prompt_tokens", 1),
        ("completion_tokens", 2), ("seconds", 0.5), ("job_id", "j"),
    ]  # fmt: skip
    failed = json.loads(Renderer(Form.JSONL).line(line(), BAD, MARK))
    assert "result" not in failed
    assert failed["error"] == {"code": "model_not_found", "message": "there is none"}


def test_a_table_has_the_inputs_columns_and_these() -> None:
    renderer = Renderer(Form.CSV, ("id", "text", "status"))
    whole = renderer.head + renderer.line(line(0, "7", id="7", text="a,\n", status="own"), BAD, MARK)
    [row] = csv.DictReader(io.StringIO(whole.decode(), newline=""))
    assert row == {
        "text": "a,\n", "status": "own", "index": "0", "id": "7", "corral_status": "failed", "result": "",
        "error_code": "model_not_found", "error_message": "there is none", "model": "", "prompt_tokens": "",
        "completion_tokens": "", "seconds": "", "job_id": "j",
    }  # fmt: skip


def test_openais_form_has_the_reply_byte_for_byte_and_is_read_by_openais_own_types() -> None:
    reply = (
        '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,\n"message":'
        '{"role":"assistant","content":"\\n\\u2028 yes"},"finish_reason":"stop"}]}\n'
    )
    outcome = Outcome("completed", reply=reply, reply_status=200, request_id="r")
    text = Renderer(Form.OPENAI).line(line(0, "x", Kind.OPENAI), outcome, MARK)
    assert reply.strip().replace("\n", " ").encode() in text
    found = json.loads(text)
    assert (found["id"], found["custom_id"], found["error"]) == (f"batch_req_{MARK}", "x", None)
    assert (found["response"]["status_code"], found["response"]["request_id"]) == (200, "r")
    assert ChatCompletion.model_validate(found["response"]["body"]).choices[0].message.content == "\n\u2028 yes"
    nothing = json.loads(Renderer(Form.OPENAI).line(line(0, "x", Kind.OPENAI), BAD, MARK))
    assert (nothing["response"], nothing["error"]["code"]) == (None, "model_not_found")


@settings(max_examples=80)
@given(text=st.text())
def test_any_answer_is_one_line_of_json_and_comes_back_as_it_is(text: str) -> None:
    outcome = Outcome("completed", result=text)
    written = Renderer(Form.JSONL).line(line(), outcome, MARK)
    assert len(written.decode().splitlines()) == 1
    assert json.loads(written)["result"] == text


@settings(max_examples=80)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_answer_comes_back_from_a_table(text: str) -> None:
    renderer = Renderer(Form.CSV)
    whole = renderer.head + renderer.line(line(), Outcome("completed", result=text), MARK)
    [row] = csv.DictReader(io.StringIO(whole.decode(), newline=""))
    assert row["result"] == text


def test_the_form_is_by_the_name_and_by_what_is_asked() -> None:
    assert form_of(Path("a.csv"), Kind.PROMPT) is Form.CSV
    assert form_of(Path("a.TSV"), Kind.PROMPT) is Form.TSV
    assert form_of(Path("a.out"), Kind.PROMPT) is Form.JSONL
    assert form_of(Path("a.jsonl"), Kind.OPENAI) is Form.OPENAI
    with pytest.raises(ConfigurationError, match="answered as JSONL"):
        form_of(Path("a.csv"), Kind.OPENAI)


def outputs(folder: Path, place: Place) -> Outputs:
    return Outputs(folder / "out", folder / "failures", place, b"", b"")


def test_a_file_goes_on_at_the_place_that_is_known_whatever_stands_behind_it(tmp_path: Path) -> None:
    one = outputs(tmp_path, Place())
    one.add(b"first\n", None)
    one.add(b"second\n", b"asked")
    place = one.place()
    one.add(b"third\n", b"lost")
    one.sync()
    one.close()
    with (tmp_path / "out").open("ab") as file:
        file.write(b"torn")
    two = outputs(tmp_path, place)
    assert (two.lines, two.failed) == (2, 1)
    two.add(b"again\n", None)
    two.sync()
    two.close()
    assert (tmp_path / "out").read_bytes() == b"first\nsecond\nagain\n"
    assert (tmp_path / "failures").read_bytes() == b"asked\n"


@pytest.mark.parametrize("data", [b"", b"first\nsec", b"first\nSECOND\nthird\n"])
def test_an_output_that_was_changed_meanwhile_is_left_alone(tmp_path: Path, data: bytes) -> None:
    one = outputs(tmp_path, Place())
    one.add(b"first\n", None)
    one.add(b"second\n", None)
    place = one.place()
    one.close()
    (tmp_path / "out").write_bytes(data)
    with pytest.raises(ConfigurationError, match="give --restart"):
        outputs(tmp_path, place)
    assert (tmp_path / "out").read_bytes() == data


def test_a_journal_knows_after_a_kill_what_was_noted(tmp_path: Path) -> None:
    one = Journal(tmp_path / "j")
    one.begin({"digest": "d"})
    one.write([(0, "a"), (1, "b")], [(1, GOOD)], {"total": 2})
    one.write([], [(0, BAD)], {"total": 2})
    with pytest.raises(ConfigurationError, match="another run writes this output"):
        Journal(tmp_path / "j")
    one.close()
    two = Journal(tmp_path / "j")
    assert (two.facts()["digest"], two.facts()["tally"]) == ("d", {"total": 2})
    assert [tuple(one) for one in two.known()] == [(0, "a", True), (1, "b", True)]
    assert (two.outcome(0), two.outcome(1), two.outcome(2)) == (BAD, GOOD, None)
    two.written(Place(1, 10, 0, 1, "m"))
    assert (two.place().lines, [one.place for one in two.known()]) == (1, [1])
    two.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose another place for the output"):
        Journal(tmp_path / "absent" / "j")


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"something else, of some length, which is no database" * 20)
    with pytest.raises(ConfigurationError, match="is no journal"):
        Journal(tmp_path / "j")


@pytest.mark.parametrize("form", list(Form))
def test_new_outcomes_come_into_the_places_of_those_that_failed(tmp_path: Path, form: Form) -> None:
    kind = Kind.OPENAI if form is Form.OPENAI else Kind.PROMPT
    renderer = Renderer(form, ("text",) if form in (Form.CSV, Form.TSV) else ())
    lines = [line(place, f"id {place}", kind, text="a\nb") for place in range(4)]
    reply = '{"object": "x"}'
    good = Outcome("completed", result="old", reply=reply, reply_status=200)
    refused = Outcome("failed", code="c", message="m", reply=reply, reply_status=400)
    old = [good, BAD, good, refused]
    output, failures = tmp_path / "out", tmp_path / "failures"
    output.write_bytes(
        renderer.head + b"".join(renderer.line(one, two, MARK) for one, two in zip(lines, old, strict=True))
    )
    assert failed_places(output, renderer, iter(lines), 4) == {1, 3}
    new = {1: good, 3: BAD}
    merge(output, failures, renderer, iter(lines), new.get, lambda place: MARK, b"")
    right = [good, good, good, BAD]
    assert output.read_bytes() == renderer.head + b"".join(
        renderer.line(one, two, MARK) for one, two in zip(lines, right, strict=True)
    )
    assert failures.read_bytes() == b'"p"\n'
    assert failed_places(output, renderer, iter(lines), 4) == {3}
    with pytest.raises(ConfigurationError, match="is not the finished output of this input"):
        failed_places(output, renderer, iter(lines[::-1]), 4)
    with pytest.raises(ConfigurationError, match="it has 4 lines, and the input 5"):
        failed_places(output, renderer, iter(lines), 5)
