"""What is written within a turn of the loop goes out at its end, in its order, and to nobody who is gone."""

from __future__ import annotations

import asyncio
import socket

import pytest

from service.coalescing import CoalescedWrites


@pytest.fixture
async def pair() -> tuple[asyncio.Transport, socket.socket]:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    return transport, theirs


async def test_it_goes_out_together_and_in_its_order(pair: tuple[asyncio.Transport, socket.socket]) -> None:
    transport, theirs = pair
    theirs.setblocking(False)
    writes = CoalescedWrites(asyncio.get_running_loop())
    for piece in (b"one ", b"two ", b"three"):
        writes.send(transport, piece)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"one two three"
    writes.send(transport, b"again")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"again"
    transport.abort()
    theirs.close()


async def test_what_comes_one_at_a_time_goes_out_at_once(pair: tuple[asyncio.Transport, socket.socket]) -> None:
    transport, theirs = pair
    theirs.setblocking(False)
    writes = CoalescedWrites(asyncio.get_running_loop())
    writes.send(transport, b"first")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"first"
    writes.send(transport, b"second")
    assert theirs.recv(100) == b"second"
    # Others come in the same turn: they wait for its end, and so does the first of the next one.
    writes.send(transport, b" and third")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b" and third"
    writes.send(transport, b"fourth")
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"fourth"
    transport.abort()
    theirs.close()


async def test_nothing_goes_to_who_is_gone(pair: tuple[asyncio.Transport, socket.socket]) -> None:
    transport, theirs = pair
    writes = CoalescedWrites(asyncio.get_running_loop())
    writes.send(transport, b"too late")
    transport.close()
    await asyncio.sleep(0)
    assert theirs.recv(100) == b""
    theirs.close()


async def test_a_peer_that_cannot_be_written_to_takes_no_other_along(
    pair: tuple[asyncio.Transport, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(asyncio.Transport):
        is_aborted = False

        def is_closing(self) -> bool:
            return False

        def write(self, data: object) -> None:
            raise RuntimeError("broken")

        def abort(self) -> None:
            self.is_aborted = True

    transport, theirs = pair
    broken, writes = Broken(), CoalescedWrites(asyncio.get_running_loop())
    writes.send(broken, b"lost")
    writes.send(transport, b"well")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"well"
    assert broken.is_aborted
    assert "could not be written to" in caplog.text
    transport.abort()
    theirs.close()
