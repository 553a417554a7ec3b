"""An aiohttp that lacks what is used of it is told at the start, and not by the first request."""

from __future__ import annotations

from importlib import import_module

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from service.api.http.aiohttp_internals import USES, check_internals
from service.app import build_app
from service.config import Config
from service.errors import StartError


def test_the_installed_one_has_all_of_it() -> None:
    check_internals()


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.owner.__name__}.{use.name}")
def test_the_module_that_uses_it_says_so_in_its_first_lines(use: tuple[str, type, str]) -> None:
    module, owner, name = use
    first_lines = (import_module(module).__doc__ or "").partition("\n\n")[0]
    assert f"``{owner.__name__}.{name}``" in first_lines


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (web.Application, "_make_request"),
        (web.StreamResponse, "_send_headers_immediately"),
        (AbstractStreamWriter, "output_size"),
    ],
)
def test_without_it_the_application_is_not_built(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(StartError, match=rf"aiohttp {aiohttp.__version__} no longer has {owner.__name__}\.{name}"):
        build_app(Config())


def test_a_request_factory_that_takes_no_class_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.Application, "_make_request", lambda *_arguments: None)
    with pytest.raises(StartError, match=r"_cls of Application\._make_request"):
        build_app(Config())
