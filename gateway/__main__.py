"""`python -m gateway`: the REST API."""

# What serves takes half a second to import, which a check of health does without.
# ruff: noqa: PLC0415

from gateway.settings import GatewaySettings
from twotower.process import run, share_one_arena


def main() -> None:
    """Serve until told to stop, or do what the command line asks for instead."""
    settings = GatewaySettings.load("python -m gateway")
    if settings.health:
        from twotower.health import check_http

        check_http(settings.host, settings.port, "/readyz")
        return
    share_one_arena()
    from gateway import service

    if settings.command == "doctor":
        service.examine(settings)
    else:
        service.serve(settings)


if __name__ == "__main__":
    run(main)
