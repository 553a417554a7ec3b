"""Inputs: each format is read, all of it is checked, and nothing is held that need not be."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.batch.inputs import opened_input
from corral.batch.lines import Kind
from corral.batch.prompts import Defaults, LineError, Template
from corral.errors import ConfigurationError
from tests.batch.files import checked, lines_of, openai_line, written

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_a_line_is_a_text_or_an_object_with_any_field_of_a_prompt(tmp_path: Path) -> None:
    whole = {
        "prompt": "b", "model": "m", "system": "s", "options": {"seed": 1}, "format": "json", "images": ["YQ=="],
        "think": "low", "keep_alive": "5m", "not_before": "2027-01-01T00:00:00Z", "expires_in_seconds": 5,
        "priority": "high", "tools": [],
    }  # fmt: skip
    chat = {"messages": [{"role": "user", "content": "c", "name": "kept"}]}
    path = written(tmp_path / "in.jsonl", "a", {**whole, "id": 7}, {**chat, "custom_id": "x"})
    first, second, third = lines_of(path)
    assert (first.index, first.number, first.id, first.body) == (0, 1, None, {"prompt": "a"})
    assert (second.id, second.body, second.model) == (7, whole, "m")
    assert (third.id, third.body, third.kind) == ("x", chat, Kind.PROMPT)
    assert [line.source for line in (first, second, third)] == path.read_bytes().splitlines()


def test_a_line_of_openais_format_is_known_by_url_and_body(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", openai_line("a"), {**openai_line("b"), "url": "/v1/embeddings"})
    lines = lines_of(path)
    assert [(line.kind, line.id, line.url) for line in lines] == [
        (Kind.OPENAI, "a", "/v1/chat/completions"),
        (Kind.OPENAI, "b", "/v1/embeddings"),
    ]
    assert checked(path).kind is Kind.OPENAI


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_a_table_has_a_column_of_prompts_or_fills_a_template(tmp_path: Path, form: str, delimiter: str) -> None:
    text = io.StringIO()
    rows = [["id", "prompt", "text"], ["1", "ask", 'a "quoted",\ttext\nof two lines'], ["", "again", "b"]]
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path = tmp_path / f"in.{form}"
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    assert [(line.id, line.body["prompt"]) for line in lines_of(path)] == [("1", "ask"), (None, "again")]
    filled = lines_of(path, Defaults(template=Template("{{Do}} {text}")))
    assert filled[0].body["prompt"] == '{Do} a "quoted",\ttext\nof two lines'
    assert checked(path).columns == ("id", "prompt", "text")
    again = next(csv.reader(io.StringIO(filled[0].source.decode(), newline=""), delimiter=delimiter))
    assert again == rows[1]


def test_a_text_file_has_a_prompt_a_line_and_templates_take_fields_of_objects(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one\r\n\r\n  two \n")
    assert [line.body for line in lines_of(tmp_path / "in.txt")] == [{"prompt": "one"}, {"prompt": "  two "}]
    template = Defaults(template=Template("Say {prompt}!"))
    assert lines_of(tmp_path / "in.txt", template)[0].body == {"prompt": "Say one!"}
    path = written(tmp_path / "in.jsonl", {"title": "x", "pages": 3, "model": "m", "other": []})
    [line] = lines_of(path, Defaults(template=Template("{title} has {pages}")))
    assert line.body == {"prompt": "x has 3", "model": "m"}


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl", "in"])
def test_a_packed_input_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b'"a"\n{"prompt": "b"}'))
    assert [line.body["prompt"] for line in lines_of(tmp_path / name)] == ["a", "b"]


def test_what_the_name_does_not_say_is_guessed_for_json_alone_and_may_be_said(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("prompt,n\nhello,1\n")
    with pytest.raises(ConfigurationError, match="give --input-format"):
        lines_of(path)
    assert lines_of(path, form="csv")[0].body == {"prompt": "hello"}
    assert lines_of(path, form="txt")[0].body == {"prompt": "prompt,n"}


def test_the_command_lines_word_is_the_default_and_the_lines_own_wins(tmp_path: Path) -> None:
    defaults = Defaults("m", "s", {"seed": 1, "top_k": 2}, "json", "low", ["YQ=="], "low", 9)
    path = written(
        tmp_path / "in.jsonl",
        "a",
        {"prompt": "b", "model": "own", "options": {"seed": 5}, "priority": "high", "think": False},
        {"messages": [{"role": "user", "content": "c"}]},
    )
    first, second, third = (line.body for line in lines_of(path, defaults))
    assert first == {
        "prompt": "a", "model": "m", "system": "s", "format": "json", "think": "low", "images": ["YQ=="],
        "priority": "low", "options": {"seed": 1, "top_k": 2, "num_predict": 9},
    }  # fmt: skip
    assert second["options"] == {"seed": 5, "top_k": 2, "num_predict": 9}
    assert (second["model"], second["priority"], second["think"]) == ("own", "high", False)
    assert "images" not in third
    path = written(tmp_path / "openai.jsonl", {**openai_line("a"), "body": {"messages": []}}, openai_line("b"))
    assert [line.model for line in lines_of(path, defaults)] == ["m", "llama3.2"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is no JSON"),
        ('{"prompt": "a", "prompt": "b"}', "is no JSON"),
        ('{"prompt": "a"} x', "is no JSON"),
        ("[1]", "is neither a text nor an object"),
        ("{}", "needs a prompt, or messages"),
        ('{"prmpt": "a"}', "did you mean prompt?"),
        ('{"prompt": " "}', "prompt: is empty"),
        ('{"prompt": 1}', "prompt: must be a text"),
        ('{"prompt": "a", "messages": []}', "give one"),
        ('{"messages": []}', "messages: is empty"),
        ('{"messages": [{"content": "a"}]}', r"messages\[0\]: must be an object with a role"),
        ('{"messages": [{"role": "user", "content": 5}]}', r"messages\[0\].content: must be a text"),
        ('{"prompt": "a", "options": []}', "options: must be an object"),
        ('{"prompt": "a", "priority": "urgent"}', "priority: must be high, normal or low"),
        ('{"prompt": "a", "expires_in_seconds": true}', "expires_in_seconds: must be a number"),
        ('{"prompt": "a", "id": {}}', "id: give a text or a number"),
        ('{"url": "/v1/chat/completions", "body": {"model": "m"}}', "custom_id: must be a text"),
        ('{"custom_id": "a", "url": "/v1/files", "body": {"model": "m"}}', "url: must be one of"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {"model": "m", "stream": true}}', "body.stream"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {}}', "body.model: is missing"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": []}', "body: must be an object"),
        ('{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {"model": "m"}}', "method"),
    ],
)
def test_each_problem_is_told_with_its_line_before_anything_is_asked(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f"\n{line}\n")
    found = checked(path)
    assert found.problem_count == 1
    [problem] = found.problems
    assert problem.number == 2
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(problem.words)


def test_twenty_problems_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    found = checked(written(tmp_path / "in.jsonl", *[{} for _ in range(50)]))
    assert (found.problem_count, len(found.problems), found.count) == (50, 20, 50)


def test_what_no_line_can_mend_ends_the_reading(tmp_path: Path) -> None:
    for data, words in (
        (b"a,a\n1,2\n", "occurs twice"),
        (b"a,\n1,2\n", "has no name"),
        (b"text\nx\n", "there is no column 'prompt'"),
        (b'prompt\n"open', "cannot be read to its end"),
        (b"prompt\n\xff\n", "cannot be read to its end"),
        (gzip.compress(b"prompt\nx\n" * 99)[:20], "cannot be read to its end"),
    ):
        (tmp_path / "in.csv").write_bytes(data)
        with pytest.raises(ConfigurationError, match=words):
            checked(tmp_path / "in.csv")
    with pytest.raises(ConfigurationError, match="No such file"):
        checked(tmp_path / "absent.jsonl")
    (tmp_path / "in.txt").write_bytes(b"good\n\xff\n")
    assert "UTF-8" in checked(tmp_path / "in.txt").problems[0].words
    (tmp_path / "wide.csv").write_bytes(b"prompt\na,b\n")
    assert "has 2 cells" in checked(tmp_path / "wide.csv").problems[0].words


def test_lines_of_two_kinds_and_ids_that_occur_twice_are_problems(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", openai_line("a"), openai_line("a"), "text")
    twice, other = checked(path).problems
    assert "occurs twice" in twice.words
    assert "do not go together" in other.words


@pytest.mark.parametrize("text", ["no field", "{text", "{text!r}", "{text:>9}", "{}", "{0.real}{ }"])
def test_a_template_that_cannot_be_filled_is_refused(text: str) -> None:
    with pytest.raises(LineError, match="--template"):
        Template(text)


def test_a_templates_missing_field_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"title": "x"}, {"text": ["x"]})
    missing, no_text = checked(path, Defaults(template=Template("{text}"))).problems
    assert "'text' is not there; there are: title" in missing.words
    assert "no text or number" in no_text.words


def test_counts_are_by_model_and_estimate_what_is_asked_and_answered(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"prompt": "abcd", "model": "m"}, "ef", {"prompt": "g", "model": "m"})
    found = checked(path, Defaults(max_tokens=10))
    assert (found.count, found.models, found.characters, found.answer_tokens) == (3, {"m": 2, "": 1}, 7, 30)
    assert checked(path).answer_tokens is None
    assert checked(path, limit=1).count == 1


def test_the_digest_is_of_the_input_and_of_all_that_makes_requests_of_it(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", "a", "b")
    packed = tmp_path / "packed.jsonl"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    one = checked(path).digest
    assert checked(packed).digest == one
    others: list[Any] = [
        checked(path, Defaults(model="m")),
        checked(path, Defaults(template=Template("{prompt}"))),
        checked(path, limit=1),
        checked(path, form="txt"),
        checked(written(tmp_path / "other.jsonl", "a", "c")),
    ]
    assert len({one, *(other.digest for other in others)}) == 6


@QUICK
@given(prompts=st.lists(TEXTS, min_size=1, max_size=5))
def test_any_text_in_json_or_a_table_is_asked_as_it_is(tmp_path: Path, prompts: list[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts), newline="")
    assert [line.body["prompt"] for line in lines_of(path)] == prompts
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["prompt"], *([prompt] for prompt in prompts)])
    table = tmp_path / "in.csv"
    table.write_bytes(text.getvalue().encode())
    assert [line.body["prompt"] for line in lines_of(table)] == prompts


def test_a_long_input_is_read_twice_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"prompt": "{"x" * 400} {number}"}}\n' for number in range(20_000)))
    with opened_input(str(path), input_format=None, defaults=Defaults(), limit=None) as source:
        tracemalloc.start()
        try:
            assert source.check().count == 20_000
            assert sum(1 for _ in source.lines()) == 20_000
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 3_000_000 < path.stat().st_size
