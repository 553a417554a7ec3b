"""README's snippets "From Python" run as they are."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from corral import Client
from tests.client.servers import both_servers
from tests.support.checkout import ROOT


def snippets() -> list[str]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## From Python\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


def test_each_snippet_runs_and_says_something(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert len(snippets()) == 4
    with both_servers(tmp_path_factory.mktemp("readme")) as servers, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_URL", servers.corral)
        for snippet in snippets():
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(snippet, {"__name__": "__main__"})
            assert said.getvalue().strip(), snippet
        with Client() as client:
            jobs = list(client.jobs())
    # Whatever the snippets print, each of their calls was answered.
    assert [job["status"] for job in jobs] == ["completed"] * (2 + 20 + 1 + 3)
    assert [job["priority"] for job in jobs].count("low") == 20
