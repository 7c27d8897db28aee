"""The gateway as a process: what serves it, and what says whether it can."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from functools import partial
from importlib.metadata import version
from typing import cast

import structlog
import uvicorn

from gateway.app import create_app
from gateway.http import HttpProtocol
from gateway.settings import GatewaySettings
from gateway.shortcut import Shortcut
from twotower import doctor
from twotower.logs import set_up_logging
from twotower.process import listen

log = structlog.get_logger()


def serve(settings: GatewaySettings) -> None:
    """Serve until told to stop. Raises SettingsError where the port is taken."""
    set_up_logging("gateway", settings.log_level)
    with listen(settings.host, settings.port) as listener:
        app = create_app(settings)
        protocol = partial(
            HttpProtocol,
            shortcut=Shortcut(app, settings.max_body_bytes),
            read_seconds=settings.read_seconds,
        )
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", protocol),
            proxy_headers=False,  # who a request came from is told nowhere
            log_config=None,  # its lines go where all others go
            access_log=False,  # the application writes one line a request itself
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        )
        server = _Server(config, settings.drain_seconds)

        def stop(*_: object) -> None:
            server.should_exit = True

        # A stop may come before uvicorn handles signals, and comes again from uvicorn when it is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        log.info("listening", address="{}:{}".format(*listener.getsockname()[:2]))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's own, but for clients that stay: a loop with open connections cannot be closed."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what is under way end, and cut off what does not."""
        end = asyncio.get_running_loop().call_later(self._drain_seconds, self._cut_off)
        await super().shutdown(sockets)
        end.cancel()

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def examine(settings: GatewaySettings) -> None:
    """Say whether this machine can serve. Raises OperationError where it cannot."""

    def build() -> str:
        routes = len(create_app(settings).openapi()["paths"])
        return f"{version('fastapi')} on uvicorn {version('uvicorn')}, {routes} routes"

    doctor.examine(settings, [doctor.Check("FastAPI", build)])
