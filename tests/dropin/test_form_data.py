"""A form is taken only where Go, by which Ollama reads it, finds the same in it; and all of it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.form_data import Form, sent_form, shown_form
from tests.dropin.test_as_go_reads import GoDecoder, go_decoder
from tests.support.forms import BOUNDARY, PATH, SOUND, field, file, form, form_type, part, speech
from tests.support.same_chance import SAME_EVERY_TIME

GOOD = speech(model="m", prompt="Grüße", response_format="text")


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoDecoder]:
    with go_decoder(tmp_path_factory) as decoder:
        yield decoder


def read(body: bytes, content_type: str = form_type()) -> Form:
    return Form(content_type, body)


def refusal(body: bytes, content_type: str = form_type()) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        Form(content_type, body)
    return str(refused.value)


def test_its_fields_are_told_and_of_its_file_name_and_size() -> None:
    it = read(GOOD)
    assert it.fields == {"model": "m", "prompt": "Grüße", "response_format": "text"}
    told = {"filename": "speech.wav", "content_type": "audio/wav", "size": len(SOUND)}
    assert it.shown == {**it.fields, "file": told}


async def test_what_is_kept_is_sent_byte_for_byte_with_its_type() -> None:
    large = speech(model="m", sound=SOUND * 8000)
    for body in (GOOD, large):
        stored = (await read(body).stored()).decode()
        assert await sent_form(stored) == (form_type(), body)
        first_line = stored.partition("\n")[0]
        assert (len(first_line) < 500, shown_form(first_line)) == (True, read(body).shown)


async def test_a_form_that_is_sent_again_is_known_by_its_fields_and_not_by_its_bytes() -> None:
    known = await read(speech(model="m", prompt="x")).fingerprint()
    assert await read(speech("another", model="m", prompt="x"), form_type("another")).fingerprint() == known
    assert await read(form(file(), field("prompt", "x"), field("model", "m"))).fingerprint() == known
    others = [
        speech(model="m", prompt="y"),
        speech(model="m"),
        speech(model="m", prompt="x", sound=SOUND + b"!"),
        form(field("model", "m"), field("prompt", "x"), file(file_name="other.wav")),
        form(field("model", "m"), field("prompt", "x"), field("file", SOUND)),
        form(field("modelm", ""), field("prompt", "x"), file()),
    ]
    assert known not in [await read(other).fingerprint() for other in others]


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="----formdata-of-the-tests"',
        "Multipart/Form-Data;Boundary=----formdata-of-the-tests",
        "multipart/form-data; charset=utf-8; boundary=----formdata-of-the-tests ",
    ],
)
def test_its_type_may_be_written_as_clients_do(content_type: str) -> None:
    assert read(GOOD, content_type).fields["model"] == "m"


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("", "request Content-Type isn't multipart/form-data"),
        ("application/json", "request Content-Type isn't multipart/form-data"),
        (f"multipart/mixed; boundary={BOUNDARY}", "request Content-Type isn't multipart/form-data"),
        ("multipart/form-data", "no multipart boundary param in Content-Type"),
        ("multipart/form-data; boundary=", "cannot be read"),
        ('multipart/form-data; boundary=""', "RFC 2046"),
        ("multipart/form-data; boundary=" + "x" * 71, "RFC 2046"),
        (f"multipart/form-data; boundary={BOUNDARY}; boundary=other", "occurs twice"),
        (f"multipart/form-data; boundary*0={BOUNDARY}", "no multipart boundary"),
        ('multipart/form-data; boundary="a\\b"', "RFC 2046"),
        (f"{form_type()}; boundary*=utf-8''other", "nothing but a boundary"),
        (f"{form_type()}; Boundary*0=ot; boundary*1=her", "nothing but a boundary"),
        (f"{form_type()}; boundary*0*=us-ascii'en'other", "nothing but a boundary"),
        (f'{form_type()}; charset="\udcff"', "nothing but a boundary"),
    ],
)
def test_what_is_no_form_is_refused_in_the_words_of_go_where_it_has_any(content_type: str, words: str) -> None:
    assert refusal(GOOD, content_type).startswith("failed to parse multipart form: ")
    assert words in refusal(GOOD, content_type)


LINE = b"\r\n--" + BOUNDARY.encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not begin"),
        (b"preamble\r\n" + GOOD, "does not begin"),
        (GOOD.replace(b"\r\n", b"\n"), "within a part"),
        (GOOD[:-4], "within a part"),
        (GOOD[: -len(LINE) - 10], "cut off"),
        (GOOD + b"epilogue", "follows its end"),
        (GOOD.replace(LINE, LINE + b" ", 1), "within a part"),
        (speech(model="m", sound=b"x\n--" + BOUNDARY.encode() + b"\r\n"), "within a part"),
        (speech(model="m", sound=LINE + b"x"), "within a part"),
        (form(b"no headers"), "no headers"),
        (form(part("form-data; name=x", b"", "X: " + "y" * 5000)), "4096 bytes"),
        (form(part("form-data; name=x", b"", "X: y\r\n folded")), "headers of a part"),
        (form(part("form-data; name=x", b"", "X: y\nZ: z")), "headers of a part"),
        (form(part("form-data; name=x", b"", "Content-Disposition: form-data; name=y")), "headers of a part"),
        (form(part("form-data; name=x", b"", "Content-Transfer-Encoding: quoted-printable")), "is encoded"),
        (form(part("attachment; name=x", b"")), "no Content-Disposition"),
        (form(part("form-data", b"")), "must have a name"),
        (form(part('form-data; name=""', b"")), "must have a name"),
        (form(part('form-data; name="mo\\del"', b"")), "must have a name"),
        (form(part("form-data; name*=utf-8''model", b"m")), "must have a name"),
        (form(part('form-data; name="a"; name="b"', b"")), "occurs twice"),
        (form(part("form-data; name=\"a\"; filename*=latin-1''x", b"")), "name of a file"),
        (form(part("form-data; name=\"a\"; filename*=utf-8''", b"")), "name of a file"),
        (form(part("form-data; name=\"a\"; filename*=utf-8''%6-1", b"")), "name of a file"),
        (form(*(field(f"x{number}", "") for number in range(101))), "more than 100 parts"),
        (form(field("prompt", "x" * (256 * 1024 + 1))), "262144 bytes"),
    ],
)
def test_what_two_could_read_in_two_ways_or_is_too_much_is_refused(body: bytes, words: str) -> None:
    assert words in refusal(body)


@pytest.mark.parametrize("second", [field("model", "m"), file(name="model")])
def test_a_name_that_occurs_twice_is_refused_and_named(second: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="'model' occurs twice") as refused:
        read(form(field("model", "m"), file(), second))
    assert refused.value.field == "model"


def test_a_name_of_a_list_may_occur_more_than_once() -> None:
    it = read(form(field("timestamp_granularities[]", "word"), field("timestamp_granularities[]", "segment")))
    assert it.fields == it.shown == {"timestamp_granularities[]": ["word", "segment"]}


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="Grüße \\"x\\".wav"', 'Grüße "x".wav'),
        ("form-data; name=file; filename*=UTF-8''Gr%C3%BC%C3%9Fe.wav", "Grüße.wav"),
        ("form-data; name=file; filename=\"x\"; filename*=utf-8''y", "y"),
        ('form-data; name="file"; filename=""', None),
    ],
)
def test_the_name_of_a_file_is_read_as_clients_write_it(disposition: str, name: str | None) -> None:
    it = read(form(part(disposition, b"sound")))
    assert ("file" in it.fields) == (name is None)
    assert it.shown["file"] == ("sound" if name is None else {"filename": name, "content_type": "", "size": 5})


DISPOSITIONS = st.builds(
    "{}; {}{}".format,
    st.sampled_from(["form-data"] * 20 + ["Form-Data", "attachment", ""]),
    st.sampled_from(
        ['name="model"', 'name="Model"', "name=model", 'name="a"'] * 4 + ['name="mo\\del"', 'name="mo\\"del"', "x=y"]
    ),
    st.sampled_from(
        ["", '; filename="a"', '; filename=""', "; filename*=utf-8''%61", '; filename="\\"\\a"'] * 4
        + [
            ";",
            '; filename="a',
            "; filename*=''a",
            "; filename*=utf-8''%6-1",
            "; filename*=utf-8'x'%61%",
            "; filename = a",
            "; name*=utf-8''model",
        ]
    ),
)
HEADERS = st.sampled_from(
    [[], ["Content-Type: text/plain"], ["Content-Transfer-Encoding: binary"]] * 5
    + [["Content-Transfer-Encoding: Quoted-Printable"], ["X : y"], ["X: y\r\n z"]]
)
CONTENTS = st.sampled_from(
    [b"m", b"=6d", b"", b"\r\n", b"x", b"\n--x"] * 4
    + [LINE[2:], b"\n" + LINE[2:] + b"\n", LINE + b"--", LINE + b" \r\n"]
)
PARTS = st.lists(
    st.builds(lambda what, head, content: part(what, content, *head), DISPOSITIONS, HEADERS, CONTENTS), max_size=2
)
TYPES = st.sampled_from(
    [form_type()] * 8
    + [f'multipart/form-data; boundary="{BOUNDARY}"', form_type() + ";", f"multipart/form-data;boundary*={BOUNDARY}"]
    + [
        form_type() + more
        for more in ("; boundary*0=x", "; boundary*=utf-8''x", "; charset=utf-8", '; x="\\"; boundary=x"')
    ]
)


@st.composite
def forms(draw: st.DrawFn) -> tuple[str, bytes]:
    body = form(*draw(PARTS), field("prompt", "x"))
    place = draw(st.integers(0, len(body)))
    return draw(TYPES), body[:place] + draw(st.sampled_from([b""] * 4 + [b"\n", b"\r\n", b" ", b"-", b'"'])) + body[
        place:
    ]


@settings(SAME_EVERY_TIME, max_examples=400)
@given(sent=forms())
def test_what_is_taken_is_read_as_go_reads_it(go: GoDecoder, sent: tuple[str, bytes]) -> None:
    content_type, body = sent
    try:
        ours = Form(content_type, body)
    except InvalidRequestError:
        return
    of_go = go.read(PATH, content_type.encode() + b"\n" + body)
    if not of_go.get("error"):
        assert of_go["model"] == ours.fields.get("model", "")
        told = {name: value["size"] if isinstance(value, dict) else value for name, value in ours.shown.items()}
        assert json.dumps(of_go["options"], sort_keys=True) == json.dumps(told, sort_keys=True)


def test_the_forms_of_clients_are_understood_by_both(go: GoDecoder) -> None:
    for body in (GOOD, form(field("model", "m"), part("form-data; name=file; filename*=utf-8''%C3%BC", SOUND))):
        told = go.read(PATH, form_type().encode() + b"\n" + body)
        assert (told.get("error"), told["model"]) == (None, "m")
        assert told["options"]["file"] == read(body).shown["file"]["size"]
