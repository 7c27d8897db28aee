"""`python -m user_tower_svc`: the user tower over gRPC."""

# What serves takes half a second to import, which a check of health does without.
# ruff: noqa: PLC0415

from twotower.process import compute_in_one_thread, run, share_one_arena
from user_tower_svc.settings import UserTowerSettings


def main() -> None:
    """Serve until told to stop, or do what the command line asks for instead."""
    settings = UserTowerSettings.load("python -m user_tower_svc")
    if settings.health:
        from twotower.health import check_grpc

        check_grpc(settings.host, settings.port)
        return
    share_one_arena()
    compute_in_one_thread()
    from user_tower_svc import service

    if settings.command == "doctor":
        service.examine(settings)
    else:
        service.serve(settings)


if __name__ == "__main__":
    run(main)
