"""`python -m user_tower_svc`: serve the user tower over gRPC."""

from twotower.process import run
from twotower.server import serve_models
from twotower.v1.user_tower_pb2 import DESCRIPTOR
from twotower.v1.user_tower_pb2_grpc import add_UserTowerServiceServicer_to_server
from user_tower_svc.embedder import UserEmbedder
from user_tower_svc.servicer import UserTowerServicer
from user_tower_svc.settings import UserTowerSettings


def main() -> None:
    """Read the settings and serve until told to stop."""
    serve_models(
        UserTowerSettings.load("python -m user_tower_svc"),
        DESCRIPTOR.services_by_name["UserTowerService"].full_name,
        UserEmbedder,
        lambda models, server: add_UserTowerServiceServicer_to_server(UserTowerServicer(models), server),
    )


if __name__ == "__main__":
    run(main)
