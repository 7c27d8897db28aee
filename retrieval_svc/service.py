"""Retrieval as a process: what serves it, and what says whether it can."""

from __future__ import annotations

from typing import Final

from retrieval_svc.retriever import Retriever
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.settings import RetrievalSettings
from twotower import doctor
from twotower.models import try_promoted
from twotower.server import serve_models
from twotower.v1.retrieval_pb2 import DESCRIPTOR
from twotower.v1.retrieval_pb2_grpc import add_RetrievalServiceServicer_to_server

_NAME: Final = DESCRIPTOR.services_by_name["RetrievalService"].full_name


def serve(settings: RetrievalSettings) -> None:
    """Serve until told to stop. Raises SettingsError where a port is taken."""
    serve_models(
        settings,
        _NAME,
        Retriever,
        lambda models, server: add_RetrievalServiceServicer_to_server(RetrievalServicer(models), server),
    )


def examine(settings: RetrievalSettings) -> None:
    """Say whether this machine can serve. Raises OperationError where it cannot."""
    from retrieval_svc.approximate import check_search  # noqa: PLC0415 - FAISS: see `index_of`

    doctor.examine(
        settings,
        [
            doctor.Check("FAISS", check_search),
            doctor.Check("model", lambda: try_promoted(settings.bundles, Retriever)),
        ],
    )
