"""Request ids: one id over all hops, in headers, metadata, rows and logs."""

from __future__ import annotations

import os
from typing import Final

import structlog

REQUEST_ID_KEY: Final = "x-request-id"
"""The HTTP header and gRPC metadata key of a request's id."""

MAX_REQUEST_ID: Final = 64
"""Most characters of a request id."""


def check_request_id(request_id: str) -> str:
    """The request id, or a new one for an empty or unfit one: it ends up in logs and headers."""
    fit = request_id.isascii() and all(c.isalnum() or c in "-_.:" for c in request_id)
    return request_id if fit and 0 < len(request_id) <= MAX_REQUEST_ID else os.urandom(16).hex()


def current_request_id() -> str:
    """The id of the request being answered, as bound for the log; empty outside of one."""
    request_id: str = structlog.contextvars.get_contextvars().get("request_id", "")
    return request_id
