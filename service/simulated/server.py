"""A simulated Ollama on a port of its own, which can also refuse connections and die."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web

from service.simulated.app import build_simulated_app
from service.simulated.faults import ArmedFault, Fault, Faults
from service.simulated.observations import Observations
from service.simulated.scheduler import Scheduler
from service.simulated.settings import SimulatedSettings
from service.simulated.simulation import SIMULATION


class SimulatedServer:
    """`async with SimulatedServer(settings) as ollama:` serves at `ollama.url`; port 0 takes any that is free."""

    def __init__(self, settings: SimulatedSettings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.app = build_simulated_app(settings)
        self._host = host
        self._port = port
        # Ollama does not look at Content-Encoding but on one route, which unpacks for itself.
        self._runner = web.AppRunner(
            self.app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1, auto_decompress=False
        )
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def faults(self) -> Faults:
        return self.app[SIMULATION].faults

    @property
    def observations(self) -> Observations:
        return self.app[SIMULATION].observations

    @property
    def scheduler(self) -> Scheduler:
        return self.app[SIMULATION].scheduler

    def arm(self, fault: Fault) -> ArmedFault:
        return self.faults.arm(fault)

    async def start(self) -> None:
        """Raises OSError when the port is in use."""
        await self._runner.setup()
        await self.accept_connections()

    async def stop(self) -> None:
        """Like Ollama at SIGTERM: listener and connections are closed at once."""
        self.faults.clear()
        await self.refuse_connections()
        await self._runner.cleanup()

    async def accept_connections(self) -> None:
        """Listen (again), on the same port as before."""
        if self._listener is None:
            assert self._runner.server is not None
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._runner.server, self._host, self._port, backlog=4096)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def refuse_connections(self) -> None:
        """Stop listening and drop every connection; the loaded models stay."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            # What was accepted just now becomes a connection in the next turns of the loop. If the listener is closed
            # before that, nobody closes the connection (CPython 3.11, selector_events).
            for socket in listener.sockets:
                asyncio.get_running_loop().remove_reader(socket.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            listener.close()
        self._drop_connections()

    async def die(self) -> None:
        """What a kill of the server does: connections end without a word, and no model is loaded afterwards."""
        await self.refuse_connections()
        self.scheduler.forget_all()

    def _drop_connections(self) -> None:
        if self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()

    async def __aenter__(self) -> SimulatedServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
