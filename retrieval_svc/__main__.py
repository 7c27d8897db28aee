"""`python -m retrieval_svc`: serve retrieval over gRPC."""

from retrieval_svc.retriever import Retriever
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.settings import RetrievalSettings
from twotower.process import run
from twotower.server import serve_models
from twotower.v1.retrieval_pb2 import DESCRIPTOR
from twotower.v1.retrieval_pb2_grpc import add_RetrievalServiceServicer_to_server


def main() -> None:
    """Read the settings and serve until told to stop."""
    serve_models(
        RetrievalSettings.load("python -m retrieval_svc"),
        DESCRIPTOR.services_by_name["RetrievalService"].full_name,
        Retriever,
        lambda models, server: add_RetrievalServiceServicer_to_server(RetrievalServicer(models), server),
    )


if __name__ == "__main__":
    run(main)
