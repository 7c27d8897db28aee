"""`python -m gateway`: serve the REST API."""

from __future__ import annotations

import signal
import socket

import structlog
import uvicorn

from gateway.app import create_app
from gateway.settings import GatewaySettings
from twotower.errors import SettingsError
from twotower.logs import set_up_logging
from twotower.process import run

log = structlog.get_logger()


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings = GatewaySettings.load("python -m gateway")
    set_up_logging("gateway", settings.log_level)
    with _listen(settings) as listener:
        config = uvicorn.Config(
            create_app(settings),
            log_config=None,  # its lines go where all others go
            access_log=False,  # the application writes one line a request itself
            server_header=False,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        # uvicorn raises the signal that stopped it once more when done; this is to exit with 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        log.info("listening", address="{}:{}".format(*listener.getsockname()[:2]))
        uvicorn.Server(config).run(sockets=[listener])


def _listen(settings: GatewaySettings) -> socket.socket:
    """Raises SettingsError where the port is taken."""
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error


if __name__ == "__main__":
    run(main)
