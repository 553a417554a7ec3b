"""systemd is told when the service is ready, when it stops, and, while its event loop turns, that it lives."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.systemd import Notifier

WAIT_SECONDS = 30


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ``NOTIFY_SOCKET`` of either kind."""
    return str(tmp_path / "notify") if request.param == "path" else f"@corral-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    """The end of the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.settimeout(WAIT_SECONDS)
        yield listening


def test_ready_and_stopping_are_told_each_with_its_status_on_one_line(manager: socket.socket, address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("serving on http://0.0.0.0:8000")
    notifier.stopping("waiting for\n2 jobs")
    assert [manager.recv(4096).decode() for _ in range(2)] == [
        "READY=1\nSTATUS=serving on http://0.0.0.0:8000",
        "STOPPING=1\nSTATUS=waiting for 2 jobs",
    ]


async def test_the_watchdog_is_fed_while_the_event_loop_turns_and_only_then(
    manager: socket.socket, address: str
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    feeding = asyncio.create_task(notifier.feed_watchdog())
    pings = [await asyncio.to_thread(manager.recv, 4096) for _ in range(3)]
    assert pings == [b"WATCHDOG=1"] * 3
    while select.select([manager], [], [], 0)[0]:
        manager.recv(4096)
    # This blocks the loop for five times the interval.
    assert select.select([manager], [], [], 0.1)[0] == []
    assert await asyncio.to_thread(manager.recv, 4096) == b"WATCHDOG=1"
    feeding.cancel()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
async def test_the_watchdog_is_fed_only_when_it_watches_this_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/run/nobody", **environ})
    assert notifier.watchdog_seconds == seconds
    if seconds is None:
        await notifier.feed_watchdog()


async def test_without_a_manager_nothing_is_told() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1"}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        notifier = Notifier(environ)
        notifier.ready("serving")
        await notifier.feed_watchdog()


def test_a_manager_that_does_not_listen_is_no_fault_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("serving")
    assert "systemd could not be told" in caplog.text
