"""Where the service listens: both families at one port, and what a machine without one of them does."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from corral.cli.asked import Asked
from service.cli.check import check
from service.cli.listening import bound_sockets, shown_urls
from service.cli.openness import openness
from service.config import load_config
from service.errors import StartError
from tests.support.running import service_in_process


@pytest.fixture(scope="module")
def _has_ipv6() -> None:
    try:
        with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)):
            pass
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


needs_ipv6 = pytest.mark.usefixtures("_has_ipv6")


@contextmanager
def listening(hosts: Sequence[str], port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = bound_sockets(hosts, port)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


def addresses(sockets: Sequence[socket.socket]) -> set[str]:
    return {one.getsockname()[0] for one in sockets}


@needs_ipv6
@pytest.mark.parametrize(
    ("hosts", "bound"),
    [
        (("0.0.0.0", "::"), {"0.0.0.0", "::"}),
        (("127.0.0.1", "::1"), {"127.0.0.1", "::1"}),
        (("::1",), {"::1"}),
        (("127.0.0.1", "127.0.0.2", "127.0.0.1"), {"127.0.0.1", "127.0.0.2"}),
        # An address that another one covers would be in its way.
        (("127.0.0.1", "0.0.0.0", "::1"), {"0.0.0.0", "::1"}),
    ],
)
def test_all_addresses_have_one_port_and_each_family_its_own_sockets(hosts: Sequence[str], bound: set[str]) -> None:
    with listening(hosts) as sockets:
        assert addresses(sockets) == bound
        assert len({one.getsockname()[1] for one in sockets}) == 1
        for one in sockets:
            if one.family == socket.AF_INET6:
                assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@needs_ipv6
async def test_a_client_of_either_family_is_known_by_its_own_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "service.access")
    async with service_in_process(access_log=True) as service, aiohttp.ClientSession() as session:
        with listening(("0.0.0.0", "::")) as sockets:
            port = sockets[0].getsockname()[1]
            for one in sockets:
                await web.SockSite(service.runner, one).start()
            owners = []
            for host in ("127.0.0.1", "[::1]", "localhost"):
                async with session.post(f"http://{host}:{port}/api/v1/prompt", json={"prompt": host}) as response:
                    owners.append((await service.jobs.views.view((await response.json())["id"])).job.owner)
            await service.stop()
    first, second, either = (
        record.getMessage().partition(" ")[0] for record in caplog.records if record.name == "service.access"
    )
    assert (first, second) == ("127.0.0.1", "::1")
    assert either in (first, second)
    # Programs of this machine are one owner, whichever of its addresses they take.
    assert owners == ["127.0.0.1"] * 3


class WithoutIPv6(socket.socket):
    """The sockets of a machine that knows no IPv6, or has no address of it."""

    failure = errno.EAFNOSUPPORT

    def bind(self, address: object) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(self.failure, "no IPv6 here")
        super().bind(address)  # type: ignore[arg-type]


@pytest.fixture(params=[errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def _without_ipv6(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithoutIPv6, "failure", request.param)
    monkeypatch.setattr(socket, "socket", WithoutIPv6)


@pytest.mark.usefixtures("_without_ipv6")
@pytest.mark.parametrize("hosts", [("0.0.0.0", "::"), ("::", "0.0.0.0"), ("::1", "127.0.0.1")])
def test_a_family_that_the_machine_lacks_is_passed_over_and_named(
    hosts: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with listening(hosts) as sockets:
        assert addresses(sockets) == {host for host in hosts if ":" not in host}
    assert (
        f"nobody is served at {'::1' if '::1' in hosts else '::'}, as this machine has no such address" in caplog.text
    )


@pytest.mark.usefixtures("_without_ipv6")
def test_where_nothing_is_left_to_listen_on_the_start_is_refused() -> None:
    with pytest.raises(
        StartError, match=r"^address \[::1\]:8000: no IPv6 here; choose another with --host and --port$"
    ):
        bound_sockets(("::1",), 8000)


def assert_refused(host: str) -> None:
    """An address beside a good one is refused, and the good one is free again."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(StartError, match=r"^address .*; choose another with --host and --port$"):
        bound_sockets(("127.0.0.1", host), port)
    with listening(("127.0.0.1",), port) as sockets:
        assert len(sockets) == 1


# Names that nobody needs to be asked for: too long as a whole, and in one part.
@pytest.mark.parametrize("host", ["203.0.113.1", ".".join(["x" * 60] * 5), "x" * 300])
def test_an_address_that_is_not_this_machines_is_refused_and_nothing_stays_open(host: str) -> None:
    assert_refused(host)


@needs_ipv6
def test_an_ipv6_address_that_is_not_this_machines_is_refused_and_not_passed_over() -> None:
    assert_refused("2001:db8::1")


@needs_ipv6
def test_a_port_that_another_program_has_at_one_of_the_addresses_is_refused() -> None:
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"^address \[::1\]:{port}: .*another program listens there"):
            bound_sockets(("127.0.0.1", "::1"), port)


@pytest.mark.parametrize(
    ("hosts", "shown"),
    [
        (("0.0.0.0", "::"), "http://localhost:8000"),
        (("127.0.0.1", "::1"), "http://localhost:8000"),
        (("127.0.0.1",), "http://127.0.0.1:8000"),
        (("::1",), "http://[::1]:8000"),
        (("10.0.0.1", "fd00::1"), "http://10.0.0.1:8000 and http://[fd00::1]:8000"),
    ],
)
def test_it_is_said_where_the_service_is_found(hosts: Sequence[str], shown: str) -> None:
    assert shown_urls(hosts, 8000) == shown


@pytest.mark.parametrize(
    ("settings", "has_keys", "said"),
    [
        ({}, False, "OPEN: anybody who reaches this machine may "),
        ({}, True, "OPEN: there are API keys, and yet anybody who reaches this machine may "),
        ({"DEMO_USER_KEY": "a"}, True, "OPEN: DEMO_USER_KEY is set, and yet anybody "),
        (
            {"DEMO_USER_KEY": "a", "DEMO_ADMIN_KEY": "b"},
            True,
            "OPEN: DEMO_ADMIN_KEY and DEMO_USER_KEY are set, and yet ",
        ),
        ({"CORRAL_SERVER__HOST": "localhost"}, False, "OPEN: anybody who reaches 127.0.0.1 or ::1 may "),
    ],
)
def test_it_is_said_who_may_come_in_and_how_to_close_it(settings: dict[str, str], has_keys: bool, said: str) -> None:
    line = openness(load_config(environ=settings), has_keys=has_keys, has_admin=False) or ""
    assert line.startswith(said)
    assert "set CORRAL_AUTH__REQUIRED=true" in line
    assert "\n" not in line
    assert ("CORRAL_SERVER__HOST=localhost" in line) == ("CORRAL_SERVER__HOST" not in settings)


@pytest.mark.parametrize(
    ("origins", "hosts", "said"),
    [
        ('["*"]', "[]", ("So may any web page", "set server.allowed_origins = []")),
        ("[]", '["*"]', ("So may any web page", "set server.allowed_hosts = []")),
        (
            '["*"]',
            '["*"]',
            ('allowed_origins has "*" and server', "set server.allowed_origins = [] and server.allowed_hosts = [] to"),
        ),
        ('["https://*"]', "[]", ("So may any web page", 'has "https://*"', "set server.allowed_origins = []")),
        ('["https://chat.example"]', "[]", ("only those of https://chat.example may do the same",)),
        ("[]", '[".example"]', ("Others' web pages may do nothing",)),
    ],
)
def test_it_is_said_which_pages_may_come_in_and_how_to_close_that(
    origins: str, hosts: str, said: tuple[str, ...]
) -> None:
    settings = {"CORRAL_SERVER__ALLOWED_ORIGINS": origins, "CORRAL_SERVER__ALLOWED_HOSTS": hosts}
    line = openness(load_config(environ=settings), has_keys=False, has_admin=False) or ""
    assert [words for words in said if words not in line] == []
    assert load_config(environ={**settings, "CORRAL_SERVER__ALLOWED_ORIGINS": "[]"}).server.allowed_origins == ()


def test_it_is_said_that_pages_behind_a_trusted_proxy_count_as_ours() -> None:
    settings = {"CORRAL_SERVER__ALLOWED_ORIGINS": "[]", "CORRAL_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}
    line = openness(load_config(environ=settings), has_keys=False, has_admin=False) or ""
    assert "every page behind a proxy of server.trusted_proxies" in line


def test_where_keys_are_required_only_a_missing_admin_is_told_of() -> None:
    config = load_config(environ={"CORRAL_AUTH__REQUIRED": "true", "DEMO_USER_KEY": "a"})
    assert openness(config, has_keys=True, has_admin=True) is None
    assert (openness(config, has_keys=True, has_admin=False) or "").startswith("CLOSED: ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DEMO_ADMIN_KEY": "hunter2"}, "warning        OPEN: DEMO_ADMIN_KEY is set, and yet anybody"),
        ({"CORRAL_SERVER__HOST": "127.0.0.1"}, "listening      http://127.0.0.1:8000: ok"),
        ({"CORRAL_SERVER__HOST": "203.0.113.1"}, "listening      FAILED: address 203.0.113.1"),
    ],
)
async def test_check_tells_of_open_doors_and_of_addresses(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    lines: list[str] = []
    environ = {"OLLAMA_URL": "http://127.0.0.1:9", "OLLAMA_PROXY_DB": str(tmp_path / "queue.db"), **settings}
    assert await check(load_config(environ=environ), Asked(), say=lines.append) == 1
    assert [line for line in lines if line.startswith(said)]
    assert "hunter2" not in "\n".join(lines)
