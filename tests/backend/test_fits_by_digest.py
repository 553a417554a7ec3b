"""What fits together is kept by the digests of models, and comes back under the names that they have then."""

from __future__ import annotations

import json

import pytest

from service.backend.fits_by_digest import FitsByDigest, by_digest, restore
from service.backend.fitting import FittingSets
from service.job import runner_key

A, B, C = "a:latest", "b:latest", "c:latest"
LARGE = runner_key("a", {"num_ctx": 8192})
DIGESTS = {A: "1", B: "2", C: "3"}
NAMES = {digest: name for name, digest in DIGESTS.items()}
NOW, WEEK = 1_800_000_000_000, 7 * 86_400_000


def known() -> FittingSets:
    """That a with a large context and b fit; and a, b and c do not."""
    fitting = FittingSets()
    fitting.remember({LARGE, B})
    fitting.refuse({A, B, C}, NOW)
    return fitting


def kept(fitting: FittingSets) -> FitsByDigest:
    """As it comes back from a database."""
    version, sets, unfit = by_digest(fitting, "1", DIGESTS)
    return FitsByDigest(version, json.loads(json.dumps(sets)), [tuple(one) for one in json.loads(json.dumps(unfit))])


def restored(names: dict[str, str], version: str = "1") -> FittingSets:
    fitting = FittingSets()
    restore(kept(known()), fitting, version, names)
    return fitting


def test_what_is_kept_comes_back_as_it_was_and_is_old() -> None:
    fitting = restored(NAMES)
    assert (fitting.sets, fitting.old) == ([], [frozenset({LARGE, B})])
    assert fitting.unfit == {frozenset({A, B, C}): NOW + WEEK}
    assert fitting.have_fitted({LARGE, B})
    assert not fitting.have_fitted({A, B})
    assert not fitting.may_be_tried({A, B, C}, NOW + WEEK - 1)
    assert fitting.may_be_tried({A, B, C}, NOW + WEEK)


def test_what_comes_back_is_no_news() -> None:
    fitting = restored(NAMES)
    fitting.remember({LARGE, B})
    assert fitting.changes == 0


def test_with_another_version_only_what_fitted_comes_back() -> None:
    fitting = restored(NAMES, version="2")
    assert (fitting.old, fitting.unfit) == ([frozenset({LARGE, B})], {})


def test_names_may_be_others_by_then() -> None:
    fitting = restored({"1": "z:latest", "2": B, "3": C})
    assert fitting.old == [frozenset({runner_key("z", {"num_ctx": 8192}), B})]
    assert set(fitting.unfit) == {frozenset({"z:latest", B, C})}


@pytest.mark.parametrize("missing", ["1", "2"])
def test_of_a_model_that_is_not_there_nothing_comes_back(missing: str) -> None:
    fitting = restored({digest: name for digest, name in NAMES.items() if digest != missing})
    assert (fitting.old, fitting.unfit) == ([], {})


def test_models_that_have_become_one_are_no_set() -> None:
    fitting = FittingSets()
    fitting.remember({A, B})
    fitting.refuse({B, C}, NOW)
    lines = kept(fitting)
    again = FittingSets()
    restore(lines, again, "1", {"1": A, "2": A, "3": A})
    assert (again.old, again.unfit) == ([], {})


def test_a_model_without_a_digest_is_not_kept() -> None:
    fitting = known()
    fitting.remember({B, C})
    _, sets, unfit = by_digest(fitting, "1", {B: "2", C: "3"})
    assert (sets, unfit) == ([[("2", ""), ("3", "")]], [])


def test_no_more_is_kept_than_is_remembered_and_the_latest() -> None:
    fitting = FittingSets()
    digests = {str(number): str(number) for number in range(500)}
    for number in range(1, 200):
        fitting.remember({"0", str(number)})
    fitting.grow_old()
    for number in range(200, 300):
        fitting.remember({"0", str(number)})
        fitting.refuse({"0", str(number), "400"}, NOW)
    _, sets, unfit = by_digest(fitting, "1", digests)
    assert len(sets) == len(unfit) == 64
    assert sets[-1] == [("0", ""), ("299", "")]
    assert unfit[-1][0] == ["0", "299", "400"]


def test_a_model_that_is_another_takes_along_what_was_known_of_its_name() -> None:
    fitting = known()
    fitting.remember({B, C})
    before = fitting.changes
    fitting.forget({A})
    assert (fitting.sets, fitting.unfit) == ([frozenset({B, C})], {})
    assert fitting.changes == before + 1
    fitting.forget({A})
    assert fitting.changes == before + 1


def test_a_doubt_is_news_too_or_what_is_kept_would_bring_it_back() -> None:
    fitting = restored(NAMES)
    fitting.doubt(B, {C})
    assert fitting.changes == 0
    fitting.doubt(B, {LARGE})
    assert fitting.changes == 1
    assert kept(fitting).fitting == []
