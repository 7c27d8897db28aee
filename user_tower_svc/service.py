"""The user tower as a process: what serves it, and what says whether it can."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from twotower import doctor
from twotower.models import try_promoted
from twotower.server import serve_models
from twotower.v1.user_tower_pb2 import DESCRIPTOR
from twotower.v1.user_tower_pb2_grpc import add_UserTowerServiceServicer_to_server
from user_tower_svc.embedder import UserEmbedder
from user_tower_svc.servicer import UserTowerServicer
from user_tower_svc.settings import UserTowerSettings

_NAME: Final = DESCRIPTOR.services_by_name["UserTowerService"].full_name


def serve(settings: UserTowerSettings) -> None:
    """Serve until told to stop. Raises SettingsError where a port is taken."""
    serve_models(
        settings,
        _NAME,
        UserEmbedder,
        lambda models, server: add_UserTowerServiceServicer_to_server(UserTowerServicer(models), server),
    )


def examine(settings: UserTowerSettings) -> None:
    """Say whether this machine can serve. Raises OperationError where it cannot."""
    doctor.examine(
        settings,
        [
            doctor.Check("LiteRT", lambda: f"{version('ai-edge-litert')}, loaded"),
            doctor.Check("model", lambda: try_promoted(settings.bundles, UserEmbedder)),
        ],
    )
